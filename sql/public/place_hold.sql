-- Reserves p_qty units of a product for its hold time: place_holds for one request, which
-- raises its refusal. Waits for the product's lock.
create or replace function flashsale.place_hold(
  p_product_id bigint, p_qty int, p_idempotency_key text default null, p_buyer text default null,
  out hold_id bigint, out product_id bigint, out qty int, out status text, out expires_at timestamptz,
  out order_id bigint, out order_status text, out replayed boolean)
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v record;
begin
  select * into v
  from flashsale.place_holds(array[1], array[p_product_id], array[p_qty], array[p_idempotency_key],
    case when p_buyer is not null then array[p_buyer] end);
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
  replayed := v.replayed;
end
$$;
comment on function flashsale.place_hold(bigint, int, text, text) is
  'Reserves units of a product for two minutes (its hold time, or settings.hold_time)';
revoke execute on function flashsale.place_hold(bigint, int, text, text) from public;
grant execute on function flashsale.place_hold(bigint, int, text, text) to flashsale_api;
