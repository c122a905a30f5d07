-- A hold as it stands at this instant, with the order it has become.
-- Refuses SA003 hold_not_found, SA009 invalid_request.
create or replace function flashsale.get_hold(
  p_hold_id bigint,
  out hold_id bigint, out product_id bigint, out qty int, out status text, out expires_at timestamptz,
  out order_id bigint, out order_status text)
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v record;
begin
  select * into v from flashsale.get_holds(array[1], array[p_hold_id]);
  if v.sqlstate is not null then
    perform flashsale_data.raise_refusal(v.sqlstate, v.detail);
  end if;
  hold_id := v.hold_id;
  product_id := v.product_id;
  qty := v.qty;
  status := v.status;
  expires_at := v.expires_at;
  order_id := v.order_id;
  order_status := v.order_status;
end
$$;
comment on function flashsale.get_hold(bigint) is 'A hold as it stands, with the order it has become';
revoke execute on function flashsale.get_hold(bigint) from public;
grant execute on function flashsale.get_hold(bigint) to flashsale_api;
