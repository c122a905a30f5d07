create or replace view flashsale.payments as
select p.idempotency_key, p.order_id, p.status, p.amount, p.currency, p.received_at, p.result,
       p.order_status, p.payload, p.wait_ends_at
from flashsale_data.payments p
where not exists (
  select from flashsale_data.orders o
  where o.order_id = p.order_id
    -- guard: tests-not-in-payments
    and o.product_id in (select t.product_id from flashsale_data.products t where t.is_test))
union all
select r.idempotency_key, r.order_id, r.status, null, null, r.first_seen_at, 'rejected', null, null, null
from flashsale_data.rejected_webhooks r
where r.dismissed_at is null and r.idempotency_key is not null and r.order_id is not null
  and r.status is not null;
comment on view flashsale.payments is 'Every webhook that was taken, but for those of test products, with what it did; stored: it waits for its order until wait_ends_at; rejected: it was refused, and stands in rejected_webhooks';
revoke all on flashsale.payments from public;
grant select on flashsale.payments to flashsale_ops;
