-- Turns a hold into an order: create_orders for one request, which raises its
-- refusal. Waits for the hold's lock.
create or replace function flashsale.create_order(
  p_hold_id bigint, p_idempotency_key text default null,
  out order_id bigint, out status text, out amount numeric, out currency text,
  out payment_due_at timestamptz, out replayed boolean)
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v record;
begin
  select * into v from flashsale.create_orders(array[1], array[p_hold_id], array[p_idempotency_key]);
  if v.sqlstate is not null then
    perform flashsale_data.raise_refusal(v.sqlstate, v.detail);
  end if;
  order_id := v.order_id;
  status := v.status;
  amount := v.amount;
  currency := v.currency;
  payment_due_at := v.payment_due_at;
  replayed := v.replayed;
end
$$;
comment on function flashsale.create_order(bigint, text) is 'Turns a hold into an order that awaits payment';
revoke execute on function flashsale.create_order(bigint, text) from public;
grant execute on function flashsale.create_order(bigint, text) to flashsale_api;
