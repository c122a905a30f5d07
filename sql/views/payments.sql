create or replace view flashsale.payments as
select p.idempotency_key, p.order_id, p.status, p.amount, p.currency, p.received_at, p.result,
       p.order_status, p.payload, p.wait_ends_at
from flashsale_data.payments p;
comment on view flashsale.payments is 'Every webhook that was taken, with what it did; stored: it waits for its order until wait_ends_at';
revoke all on flashsale.payments from public;
grant select on flashsale.payments to flashsale_ops;
