-- Frees the keys of stored webhooks whose wait has ended at p_now (p_wait_ended, by request),
-- so that apply_payments can serve their requests; p_order_ids are these webhooks' orders.
-- Returns, by request, whether it is to be applied, and whether its key's webhook is locked
-- elsewhere; and how many webhooks have left the inbox, which the caller subtracts from
-- inbox.stored.
--
-- Locked elsewhere: another transaction is open that has locked the order's id, and so may
-- create the order and apply the webhook, or that has locked the webhook's row to end its wait.
-- The webhook counts as stored until that transaction ends. With p_wait, for which the caller
-- has waited for the order's id, this function waits for the row, too; without it the webhook
-- is left alone, and apply_payments answers 55P03 to a request that it cannot answer as a
-- replay. For || '' see docs/design.md.
create or replace function flashsale_data.free_keys(
  p_idempotency_keys text[], p_to_apply boolean[], p_wait_ended boolean[], p_order_ids bigint[],
  p_wait boolean, p_now timestamptz,
  out to_apply boolean[], out locked_elsewhere boolean[], out ended int)
language plpgsql
as $$
declare
  v_keys      text[];
  v_order_ids bigint[];
begin
  v_keys := array(
    select distinct request.key
    from unnest(p_idempotency_keys, p_wait_ended) as request (key, wait_ended) where request.wait_ended);
  v_order_ids := flashsale_data.lock_order_ids(p_order_ids, p_wait => false);
  if p_wait then
    perform from flashsale_data.payments p where p.idempotency_key = any (v_keys) for update;
  end if;
  ended := flashsale_data.end_waits(array(
    select p.idempotency_key from flashsale_data.payments p
    where p.idempotency_key = any (v_keys) and p.result || '' = 'stored'
      and (p.order_id in (select unnest(v_order_ids))) is true
    for update skip locked), p_now);

  -- guard: key-still-taken
  select array_agg(request.to_apply and not (request.wait_ended and request.is_recorded)),
         array_agg(request.wait_ended and request.is_stored)
    into to_apply, locked_elsewhere
  from (
    select r.to_apply, r.wait_ended, p.idempotency_key is not null as is_recorded,
           coalesce(p.result || '' = 'stored', false) as is_stored
    from unnest(p_idempotency_keys, p_to_apply, p_wait_ended) with ordinality
      as r (key, to_apply, wait_ended, i)
    left join flashsale_data.payments p on r.wait_ended and p.idempotency_key = r.key
    order by r.i) request;
end
$$;
comment on function flashsale_data.free_keys(text[], boolean[], boolean[], bigint[], boolean, timestamptz) is
  'Frees the keys of stored webhooks whose wait has ended, so that they can be used again';
