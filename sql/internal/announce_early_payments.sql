-- Finds the stored webhooks of these orders, which the caller is about to create, and
-- announces, by a shared advisory lock for each, that it may apply those that are
-- still waiting. list_refunds_due() leaves out what is announced: it is not certain
-- yet whether it becomes a refund. The caller reads the clock after this, and applies
-- none whose wait is over by then. No transaction ever waits for these locks.
-- Returns the keys of all that are stored.
create or replace function flashsale_data.announce_early_payments(p_order_ids bigint[])
returns text[]
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  v_keys text[];
begin
  -- Found by order: || '' keeps the planner from the index of all that are stored,
  -- which is the smaller one in quiet times, and none in a flood or beside an old
  -- snapshot.
  v_keys := array(
    select p.idempotency_key from flashsale_data.payments p
    where p.order_id = any (p_order_ids) and p.result || '' = 'stored');
  if cardinality(v_keys) > 0 then
    perform pg_advisory_xact_lock_shared(hashtext('flashsale.early_payment'), hashtext(p.idempotency_key))
    from flashsale_data.payments p
    where p.idempotency_key = any (v_keys) and p.wait_ends_at > clock_timestamp();
  end if;
  return v_keys;
end
$$;
comment on function flashsale_data.announce_early_payments(bigint[]) is
  'Finds the stored webhooks of coming orders, and announces that they may be applied';
