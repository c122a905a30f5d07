-- Webhooks as they stand at this instant. One that has waited for its order for
-- settings.inbox_keep waits no longer, whether or not anybody has tidied it: a
-- captured payment is never dropped, it reads as refund_due; the others read as
-- forgotten, and their key is free again.
create or replace view flashsale_data.current_payments as
select p.idempotency_key, p.order_id, p.status, p.amount, p.currency, p.payload, p.received_at, p.arrival,
       case when p.result <> 'stored'
                 or p.received_at > clock_timestamp() - (select c.inbox_keep from flashsale_data.settings c)
              then p.result
            when p.status = 'success' then 'refund_due'
            else 'forgotten' end as result,
       p.order_status
from flashsale_data.payments p;
comment on view flashsale_data.current_payments is 'Webhooks as they stand at this instant';
