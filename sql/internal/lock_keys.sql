-- Locks idempotency keys until commit: the first lock of every write, so that two requests
-- with one key cannot both find it unused. The lock is advisory, because there is no row yet.
-- Returns the keys it locked. As lock_stock(): never waits for one key while it holds another,
-- and waits for the lowest if all are locked elsewhere. Keys with equal hashes share a lock,
-- which at worst leaves one of them out.
create or replace function flashsale_data.lock_keys(p_scope text, p_keys text[])
returns text[]
language plpgsql
as $$
declare
  v_keys   text[] := array(select distinct k from unnest(p_keys) k where k is not null order by k);
  v_locked text[];
begin
  if cardinality(v_keys) > 1 then
    v_locked := array(
      select k from unnest(v_keys) k
      where pg_try_advisory_xact_lock(hashtext('flashsale.' || p_scope), hashtext(k)));
  end if;
  if cardinality(v_keys) > 0 and coalesce(cardinality(v_locked), 0) = 0 then
    perform pg_advisory_xact_lock(hashtext('flashsale.' || p_scope), hashtext(v_keys[1])); -- guard: key-lock
    v_locked := v_keys[1:1];
  end if;
  return coalesce(v_locked, '{}');
end
$$;
comment on function flashsale_data.lock_keys(text, text[]) is 'Locks idempotency keys; returns those it locked';
