-- An order as it stands at this instant. For services, which may see any order; a buyer's
-- request goes to get_orders(). Refuses SA007 order_not_found, SA009 invalid_request,
-- SA029 wrong_shard, SA030 not_primary.
create or replace function flashsale.get_order(
  p_order_id bigint,
  out order_id bigint, out hold_id bigint, out product_id bigint, out qty int, out status text,
  out cancel_reason text, out amount numeric, out currency text,
  out created_at timestamptz, out payment_due_at timestamptz)
language plpgsql security definer
set search_path = pg_catalog, pg_temp
-- planner settings: docs/design.md
set plan_cache_mode = force_generic_plan set jit = off
set enable_seqscan = off set enable_bitmapscan = off set enable_material = off
set enable_hashjoin = off set enable_mergejoin = off
as $$
declare
  v_now timestamptz;
begin
  if p_order_id is null then
    perform flashsale_data.raise_refusal('SA009', 'An order has an id.');
  end if;
  if pg_is_in_recovery() then -- guard: read-on-primary
    perform flashsale_data.raise_refusal('SA030', flashsale_data.primary_error());
  end if;
  v_now := flashsale_data.read_clock();
  select f.order_id, f.hold_id, f.product_id, f.qty, f.status, f.cancel_reason, f.amount, f.currency,
         f.created_at, f.payment_due_at
    into order_id, hold_id, product_id, qty, status, cancel_reason, amount, currency, created_at, payment_due_at
  from flashsale_data.orders_at(v_now) f
  where f.order_id = p_order_id;
  if order_id is null then
    perform flashsale_data.raise_refusal(flashsale_data.not_found('SA007', p_order_id), format('There is no order %s.', p_order_id));
  end if;
end
$$;
comment on function flashsale.get_order(bigint) is 'An order as it stands at this instant';
revoke execute on function flashsale.get_order(bigint) from public;
grant execute on function flashsale.get_order(bigint) to flashsale_api;
