-- Returns the keys of the stored webhooks of these orders, which the caller is about to
-- create. If there are any, announces that the caller may apply webhooks whose wait ends from
-- now on, by a shared advisory lock whose number is the time in tenths of a second.
-- list_refunds_due() leaves out each refund that the announcement makes uncertain. The caller
-- reads the clock afterwards, and applies no webhook whose wait has ended by then. One lock,
-- however many webhooks; no transaction ever waits for it.
create or replace function flashsale_data.announce_stored_webhooks(p_order_ids bigint[])
returns text[]
language plpgsql
as $$
declare
  v_keys  text[];
  v_tenth bigint;
begin
  -- || '': docs/design.md
  v_keys := array(
    select p.idempotency_key from flashsale_data.payments p
    where p.order_id = any (p_order_ids) and p.result || '' = 'stored');
  if cardinality(v_keys) = 0 then
    return v_keys;
  end if;

  -- A wait that ends after the clock is read and before the lock is taken may be listed as
  -- a refund in between, which this lock would make uncertain again. If the tenth has passed
  -- meanwhile, the lock is therefore released, which SA000 does (flashsale.refusals), and taken
  -- for the next one.
  loop
    begin
      v_tenth := floor(extract(epoch from clock_timestamp()) * 10)::bigint;
      perform pg_advisory_xact_lock_shared(
        hashtext('flashsale.stored_webhooks'), (v_tenth % 2147483648)::int); -- guard: stored-webhooks-announced
      exit when v_tenth = floor(extract(epoch from clock_timestamp()) * 10)::bigint;
      raise exception using errcode = 'SA000';
    exception when sqlstate 'SA000' then
      null;
    end;
  end loop;
  return v_keys;
end
$$;
comment on function flashsale_data.announce_stored_webhooks(bigint[]) is
  'Finds the stored webhooks of coming orders, and announces that they may be applied';
