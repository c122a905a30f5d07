-- Tidies away webhooks whose order has not come within settings.inbox_keep: makes
-- of them what current_payments has read since. A captured payment is never
-- dropped: it becomes a refund. The others go.
-- Returns how many left the inbox.
create or replace function flashsale_data.expire_inbox(p_limit int)
returns int
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  v_count int;
begin
  -- A sweep waits for nobody, and leaves the row alone when nothing is stale;
  -- store_payments has it locked already. Whoever applies stored webhooks locks
  -- those first and this row last: SKIP LOCKED keeps the two from waiting for
  -- each other.
  perform from flashsale_data.inbox
  where exists (
    select from flashsale_data.payments p, flashsale_data.settings c
    where p.result = 'stored' and p.received_at <= clock_timestamp() - c.inbox_keep)
  for no key update skip locked;
  if not found then
    return 0;
  end if;
  perform flashsale_data.open_ledger();
  with stale as materialized (
    select p.idempotency_key, p.order_id, p.status
    from flashsale_data.payments p
    where p.result = 'stored'
      and p.received_at <= clock_timestamp() - (select c.inbox_keep from flashsale_data.settings c)
    order by p.received_at
    limit p_limit
    for update skip locked
  ), refund as (
    update flashsale_data.payments p
    set result = 'refund_due'
    from stale s
    where p.idempotency_key = s.idempotency_key and s.status = 'success'
  ), recorded as (
    insert into flashsale_data.events (kind, at, order_id, payment_key)
    select 'refund_due', clock_timestamp(), s.order_id, s.idempotency_key
    from stale s where s.status = 'success'
  ), forgotten as (
    delete from flashsale_data.payments p
    using stale s
    where p.idempotency_key = s.idempotency_key and s.status <> 'success'
  )
  select count(*)::int into v_count from stale;
  update flashsale_data.inbox set stored = stored - v_count where v_count > 0;
  return v_count;
end
$$;
comment on function flashsale_data.expire_inbox(int) is 'Ends the wait of webhooks whose order never came';
