create or replace view flashsale.open_orders as
select o.order_id, o.hold_id, o.product_id, o.qty, o.amount, o.currency, o.created_at, o.payment_due_at,
       o.payment_due_at - clock.now as time_left
from flashsale_data.orders o
cross join flashsale_data.statement_clock clock
where o.status = 'pending_payment' and o.payment_due_at > clock.now
  and o.payment_due_at > (
    select s.lapsed_through from flashsale_data.stock s
    where s.product_id = o.product_id
    order by s.version desc limit 1);
comment on view flashsale.open_orders is 'Orders that await payment and are not overdue when the statement begins';
revoke all on flashsale.open_orders from public;
grant select on flashsale.open_orders to flashsale_ops;
