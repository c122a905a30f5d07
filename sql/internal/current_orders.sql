-- Orders as they stand at this instant. A pending order that is overdue reads as
-- cancelled whether or not anybody has tidied it.
create or replace view flashsale_data.current_orders as
select o.order_id, o.hold_id, o.product_id, o.qty,
       case when clock.overdue then 'cancelled' else o.status end as status,
       case when clock.overdue then 'payment_overdue' else o.cancel_reason end as cancel_reason,
       o.amount, o.currency, o.created_at, o.payment_due_at, o.idempotency_key
from flashsale_data.orders o
cross join lateral (
  select o.status = 'pending_payment'
         and o.payment_due_at <= greatest(clock_timestamp(), s.lapsed_through) as overdue
  from flashsale_data.stock s
  where s.product_id = o.product_id
  order by s.version desc limit 1) clock;
comment on view flashsale_data.current_orders is 'Orders as they stand at this instant';
