-- Ends the wait of the stored webhooks with these keys, as far as it has ended at p_now. The
-- only place that decides what becomes of a webhook whose order did not come: a captured
-- payment is never dropped but becomes a refund; the others are deleted, and their keys are
-- free again.
--
-- Expects the webhooks to be locked. Returns how many left the inbox; the caller subtracts
-- that number from inbox.stored, which is the last lock of all. For || '' see docs/design.md.
create or replace function flashsale_data.end_waits(p_keys text[], p_now timestamptz)
returns int
language plpgsql
as $$
declare
  v_ended int;
begin
  if cardinality(p_keys) = 0 then
    return 0;
  end if;
  perform flashsale_data.announce_ledger_write();
  with ended as materialized (
    select p.idempotency_key, p.order_id, p.status
    from flashsale_data.payments p
    where p.idempotency_key = any (p_keys) and p.result || '' = 'stored' and p.wait_ends_at <= p_now
  ), refund as (
    update flashsale_data.payments p
    set result = 'refund_due', refund_reason = 'order_unknown',
        refund_state = case when p.amount = 0 then 'settled' else 'due' end -- guard: nothing-due-unknown
    from ended e
    where p.idempotency_key = e.idempotency_key and e.status = 'success'
  ), recorded as (
    insert into flashsale_data.events (kind, at, order_id, payment_key)
    select 'refund_due', clock_timestamp(), e.order_id, e.idempotency_key
    from ended e where e.status = 'success'
  ), deleted as (
    delete from flashsale_data.payments p
    using ended e
    where p.idempotency_key = e.idempotency_key
      and e.status <> 'success' -- guard: captured-kept
  )
  select count(*)::int into v_ended from ended;
  return v_ended;
end
$$;
comment on function flashsale_data.end_waits(text[], timestamptz) is
  'Ends the wait of stored webhooks: captured payments become refunds, the others go';
