-- Locks hold rows until commit, so that only one of create_orders, release_holds
-- and the sweep moves a hold on. Returns the ids it locked; a known hold that is
-- not among them is busy. Like lock_stock, it never waits for one while it holds
-- another, and waits for the lowest if all are busy.
create or replace function flashsale_data.lock_holds(p_hold_ids bigint[])
returns bigint[]
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  v_locked bigint[];
begin
  if cardinality(p_hold_ids) > 1 then
    v_locked := array(
      select h.hold_id from flashsale_data.holds h
      where h.hold_id = any (p_hold_ids)
      for no key update skip locked); -- guard: hold-lock
  end if;
  if coalesce(cardinality(v_locked), 0) = 0 then
    v_locked := array(
      select h.hold_id from flashsale_data.holds h
      where h.hold_id = (select min(wanted) from unnest(p_hold_ids) wanted)
      for no key update); -- guard: hold-lock
  end if;
  return v_locked;
end
$$;
comment on function flashsale_data.lock_holds(bigint[]) is 'Locks hold rows; returns the ids it locked';
