-- Removes the rejected webhooks that apply_payments has understood: a webhook with the same id was
-- served, or without an id, one with the same key, and it does not contradict what could be read of
-- the rejected one. The arrays are the requests of apply_payments, p_given_keys their keys as they came and
-- p_idempotency_keys as they are kept (slot_keys()). The last locks of a call: it waits for none, and
-- leaves the row of a webhook that is being rejected at this moment to its next delivery.
create or replace function flashsale_data.resolve_rejected_webhooks(
  p_webhook_ids text[], p_errors text[], p_given_keys text[], p_idempotency_keys text[], p_order_ids bigint[], p_statuses text[],
  p_amounts numeric[], p_currencies text[])
returns void
language plpgsql
as $$
begin
  -- Most calls: no webhook was rejected before.
  if p_webhook_ids is null or not exists (select from flashsale_data.rejected_webhooks) then
    return;
  end if;
  delete from flashsale_data.rejected_webhooks r
  where r.webhook_id in (
    select w.webhook_id
    from unnest(p_webhook_ids, p_errors, p_given_keys, p_idempotency_keys, p_order_ids, p_statuses, p_amounts,
                p_currencies)
      as request (webhook_id, error, given_key, key, order_id, status, amount, currency)
    join flashsale_data.payments p on p.idempotency_key = request.key
    join flashsale_data.rejected_webhooks w
      on w.webhook_id = flashsale_data.rejected_webhook_id(
           coalesce(nullif(request.webhook_id, ''), 'key:' || request.given_key))
    where request.error is null
      -- guard: rejected-until-understood
      and (p.order_id, p.status, p.amount, p.currency)
          is not distinct from (request.order_id, request.status, request.amount, request.currency)
      -- guard: contradiction-stands
      and coalesce(w.order_id, p.order_id) = p.order_id and coalesce(w.status, p.status) = p.status
      -- What its key was used for comes again and again.
      and (request.webhook_id <> '' or w.code <> 'idempotency_key_reused')
    for update of w skip locked);
end
$$;
comment on function flashsale_data.resolve_rejected_webhooks(
  text[], text[], text[], text[], bigint[], text[], numeric[], text[]) is
  'Removes the rejected webhooks that apply_payments has understood';
