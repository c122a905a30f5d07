create or replace view flashsale.refunds as
select r.refund_key, r.payment_key, p.order_id, r.amount, r.currency, r.kind, r.status,
       row_number() over (partition by r.payment_key order by coalesce(r.requested_at, r.recorded_at), r.refund_key) as attempt,
       r.requested_at, r.lease_ends_at, r.recorded_at, r.payload
from flashsale_data.refunds r
left join flashsale_data.payments p on p.idempotency_key = r.payment_key;
comment on view flashsale.refunds is 'Refunds that were requested, or reported by the provider, each attempt of a payment';
revoke all on flashsale.refunds from public;
grant select on flashsale.refunds to flashsale_ops;
