create or replace view flashsale.sale as
select s.product_id, s.name, s.total_stock, s.available_stock, s.held, s.awaiting, s.paid,
       s.holds_per_second, s.orders_per_second, s.paid_per_second
from flashsale.list_sale() s;
comment on view flashsale.sale is 'Every product with its exact stock and what happened to it a second, over the last 10';
revoke all on flashsale.sale from public;
grant select on flashsale.sale to flashsale_ops;
