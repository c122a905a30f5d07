create or replace view flashsale.rejected_webhooks as
select r.webhook_id, r.code, r.detail, r.idempotency_key, r.order_id, r.status, r.deliveries,
       r.first_seen_at, r.last_seen_at, r.body_size, encode(r.body, 'escape') as body_text, r.body
from flashsale_data.rejected_webhooks r
where r.dismissed_at is null;
comment on view flashsale.rejected_webhooks is 'Refused webhooks that may stand for captured money, until they are understood or dismissed';
revoke all on flashsale.rejected_webhooks from public;
grant select on flashsale.rejected_webhooks to flashsale_ops;
