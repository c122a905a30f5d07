-- Extends a hold by settings.extension_time: extend_holds for one request, which raises its
-- refusal. p_expires_at is the end that the caller has seen. Waits for the hold's lock.
create or replace function flashsale.extend_hold(
  p_hold_id bigint, p_expires_at timestamptz, out expires_at timestamptz, out replayed boolean)
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v record;
begin
  select * into v from flashsale.extend_holds(array[1], array[p_hold_id], array[p_expires_at]);
  if v.sqlstate is not null then
    perform flashsale_data.raise_refusal(v.sqlstate, v.detail);
  end if;
  expires_at := v.expires_at;
  replayed := v.replayed;
end
$$;
comment on function flashsale.extend_hold(bigint, timestamptz) is
  'Extends a hold before it lapses (settings.extension_time)';
revoke execute on function flashsale.extend_hold(bigint, timestamptz) from public;
grant execute on function flashsale.extend_hold(bigint, timestamptz) to flashsale_api;
