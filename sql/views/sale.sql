create or replace view flashsale.sale as
select s.product_id, s.name, s.total_stock, s.available_stock, s.held, s.awaiting, s.paid,
       coalesce(r.holds, 0) as holds_per_second, coalesce(r.orders, 0) as orders_per_second,
       coalesce(r.paid, 0) as paid_per_second
from flashsale.stock s
left join (
  select c.product_id,
         round(sum(c.events) filter (where c.kind = 'hold_placed') / 10, 1) as holds,
         round(sum(c.events) filter (where c.kind = 'order_created') / 10, 1) as orders,
         round(sum(c.events) filter (where c.kind = 'order_paid') / 10, 1) as paid
  from flashsale.count_events() c
  group by c.product_id) r on r.product_id = s.product_id;
comment on view flashsale.sale is 'Every product with its exact stock and what happened to it a second, over the last 10';
revoke all on flashsale.sale from public;
grant select on flashsale.sale to flashsale_ops;
