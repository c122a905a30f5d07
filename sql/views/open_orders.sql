create or replace view flashsale.open_orders as
select o.order_id, o.hold_id, o.product_id, o.qty, o.amount, o.currency, o.created_at, o.payment_due_at,
       o.time_left
from flashsale.list_open_orders() o;
comment on view flashsale.open_orders is 'Orders that await payment and are not overdue at this instant';
revoke all on flashsale.open_orders from public;
grant select on flashsale.open_orders to flashsale_ops;
