-- Webhooks as they stand at this instant. One that has waited for its order for
-- settings.inbox_keep waits no longer, whether or not anybody has tidied it: a
-- captured payment is never dropped, it reads as refund_due; the others read as
-- forgotten, and their key is free again.
--
-- The clock is read in a subquery of its own: read in the view's columns, it would
-- keep the planner from looking up one key, and each look would read all payments.
create or replace view flashsale_data.current_payments as
select p.idempotency_key, p.order_id, p.status, p.amount, p.currency, p.payload, p.received_at, p.arrival,
       case when not clock.over then p.result
            when p.status = 'success' then 'refund_due'
            else 'forgotten' end as result,
       p.order_status
from flashsale_data.payments p
cross join lateral (
  select p.result = 'stored'
         and p.received_at <= clock_timestamp() - (select c.inbox_keep from flashsale_data.settings c)) clock (over);
comment on view flashsale_data.current_payments is 'Webhooks as they stand at this instant';
