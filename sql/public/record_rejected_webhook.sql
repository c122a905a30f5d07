-- Keeps a webhook of the payment provider that was refused: record_rejected_webhooks for one
-- request, which raises its refusal. After a refusal of apply_payment() call it once the
-- transaction has been rolled back.
create or replace function flashsale.record_rejected_webhook(
  p_webhook_id text, p_body bytea, p_code text, p_detail text, p_idempotency_key text default null,
  p_order_id bigint default null, p_status text default null,
  out webhook_id text, out result text, out deliveries bigint)
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v record;
begin
  select * into v
  from flashsale.record_rejected_webhooks(array[1], array[p_webhook_id], array[p_body], array[p_code],
    array[p_detail], array[p_idempotency_key], array[p_order_id], array[p_status]);
  if v.sqlstate is not null then
    perform flashsale_data.raise_refusal(v.sqlstate, v.detail);
  end if;
  webhook_id := v.webhook_id;
  result := v.result;
  deliveries := v.deliveries;
end
$$;
comment on function flashsale.record_rejected_webhook(text, bytea, text, text, text, bigint, text) is
  'Keeps a webhook that was refused and may stand for captured money';
revoke execute on function flashsale.record_rejected_webhook from public;
grant execute on function flashsale.record_rejected_webhook to flashsale_api;
