-- Applies the payment provider's webhook for an order: apply_payments for one
-- request, which raises its refusal. Waits for the order's lock.
create or replace function flashsale.apply_payment(
  p_idempotency_key text, p_order_id bigint, p_status text, p_payload jsonb default '{}',
  out order_id bigint, out status text, out result text, out replayed boolean)
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v record;
begin
  select * into v
  from flashsale.apply_payments(array[1], array[p_idempotency_key], array[p_order_id], array[p_status],
    array[p_payload]);
  if v.sqlstate is not null then
    perform flashsale_data.raise_refusal(v.sqlstate, v.detail);
  end if;
  order_id := v.order_id;
  status := v.status;
  result := v.result;
  replayed := v.replayed;
end
$$;
comment on function flashsale.apply_payment(text, bigint, text, jsonb) is
  'Applies the payment provider''s webhook for an order';
revoke execute on function flashsale.apply_payment(text, bigint, text, jsonb) from public;
grant execute on function flashsale.apply_payment(text, bigint, text, jsonb) to flashsale_api;
