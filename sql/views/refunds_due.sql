create or replace view flashsale.refunds_due as
select r.idempotency_key, r.order_id, r.amount, r.currency, r.received_at, r.reason
from flashsale.list_refunds_due() r;
comment on view flashsale.refunds_due is 'Captured payments for which money is owed back, and how much';
revoke all on flashsale.refunds_due from public;
grant select on flashsale.refunds_due to flashsale_ops;
