-- Returns a hold's units to stock: release_holds for one request, which raises its
-- refusal. Waits for the hold's lock.
create or replace function flashsale.release_hold(
  p_hold_id bigint, out hold_id bigint, out status text)
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v record;
begin
  select * into v from flashsale.release_holds(array[1], array[p_hold_id]);
  if v.sqlstate is not null then
    perform flashsale_data.raise_refusal(v.sqlstate, v.detail);
  end if;
  hold_id := v.hold_id;
  status := v.status;
end
$$;
comment on function flashsale.release_hold(bigint) is 'Returns a hold''s units to stock';
revoke execute on function flashsale.release_hold(bigint) from public;
grant execute on function flashsale.release_hold(bigint) to flashsale_api;
