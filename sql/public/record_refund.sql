-- Records what has become of one refund: record_refunds for one request, which raises its refusal.
create or replace function flashsale.record_refund(
  p_refund_key text, p_payment_key text, p_amount numeric, p_status text, p_kind text default 'refund',
  p_payload jsonb default '{}', p_await_payment boolean default false,
  out payment_key text, out refunded numeric, out still_due numeric, out replayed boolean)
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v record;
begin
  select * into v
  from flashsale.record_refunds(array[1], array[p_refund_key], array[p_payment_key], array[p_amount],
    array[p_status], array[p_kind], array[p_payload], p_await_payment);
  if v.sqlstate is not null then
    perform flashsale_data.raise_refusal(v.sqlstate, v.detail);
  end if;
  payment_key := v.payment_key;
  refunded := v.refunded;
  still_due := v.still_due;
  replayed := v.replayed;
end
$$;
comment on function flashsale.record_refund(
  text, text, numeric, text, text, jsonb, boolean) is
  'Records what has become of a refund';
revoke execute on function flashsale.record_refund(
  text, text, numeric, text, text, jsonb, boolean) from public;
grant execute on function flashsale.record_refund(
  text, text, numeric, text, text, jsonb, boolean) to flashsale_api;
