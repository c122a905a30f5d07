-- Cancels an order for the shop: cancel_orders for one request, which raises its refusal. Waits for
-- the order's lock.
create or replace function flashsale.cancel_order(
  p_order_id bigint, p_restock boolean default true, out order_id bigint, out status text, out cancel_reason text)
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v record;
begin
  select * into v from flashsale.cancel_orders(array[1], array[p_order_id], array[p_restock]);
  if v.sqlstate is not null then
    perform flashsale_data.raise_refusal(v.sqlstate, v.detail);
  end if;
  order_id := v.order_id;
  status := v.status;
  cancel_reason := v.cancel_reason;
end
$$;
comment on function flashsale.cancel_order(bigint, boolean) is 'Cancels an order for the shop';
revoke execute on function flashsale.cancel_order(bigint, boolean) from public;
grant execute on function flashsale.cancel_order(bigint, boolean) to flashsale_ops;
