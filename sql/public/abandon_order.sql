-- Gives back a pending order: abandon_orders for one request, which raises its refusal. Waits for
-- the order's lock.
create or replace function flashsale.abandon_order(
  p_order_id bigint, p_hold_id bigint, out order_id bigint, out status text)
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v record;
begin
  select * into v from flashsale.abandon_orders(array[1], array[p_order_id], array[p_hold_id]);
  if v.sqlstate is not null then
    perform flashsale_data.raise_refusal(v.sqlstate, v.detail);
  end if;
  order_id := v.order_id;
  status := v.status;
end
$$;
comment on function flashsale.abandon_order(bigint, bigint) is 'Gives back a pending order';
revoke execute on function flashsale.abandon_order(bigint, bigint) from public;
grant execute on function flashsale.abandon_order(bigint, bigint) to flashsale_api;
