create or replace view flashsale.open_orders as
select o.order_id, o.hold_id, o.product_id, o.qty, o.amount, o.currency, o.created_at, o.payment_due_at,
       o.payment_due_at - clock.now as time_left
from flashsale_data.orders o
cross join lateral (
  select greatest(clock_timestamp(), s.lapsed_through) as now
  from flashsale_data.stock s
  where s.product_id = o.product_id
  order by s.version desc limit 1) clock
where o.status = 'pending_payment' and o.payment_due_at > clock_timestamp() and o.payment_due_at > clock.now;
comment on view flashsale.open_orders is 'Orders that await payment and are not overdue at this instant';
revoke all on flashsale.open_orders from public;
grant select on flashsale.open_orders to flashsale_ops;
