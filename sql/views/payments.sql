create or replace view flashsale.payments as
select p.idempotency_key, p.order_id, p.status, p.amount, p.currency, p.received_at, p.result,
       p.order_status, p.payload
from flashsale_data.current_payments p
where p.result <> 'forgotten';
comment on view flashsale.payments is 'Every webhook that was taken, with what it did; result stored: its order is not known';
revoke all on flashsale.payments from public;
grant select on flashsale.payments to flashsale_ops;
