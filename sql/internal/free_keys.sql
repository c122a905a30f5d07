-- Frees the keys of stored webhooks whose wait is over at p_now (p_over, by request), so that
-- apply_payments can serve their requests. Returns by request whether it is still to be
-- served, and whether its key's webhook is busy; and how many webhooks have left the inbox,
-- which the caller subtracts from inbox.stored.
--
-- As long as a transaction that creates the order (one of p_order_ids) may yet apply the
-- webhook, or an open sweep ends its wait, the webhook counts as stored. A request that its
-- key would refuse for that is not answered before: with p_wait it waits for that
-- transaction, without it is busy.
create or replace function flashsale_data.free_keys(
  p_idempotency_keys text[], p_fresh boolean[], p_over boolean[], p_order_ids bigint[], p_wait boolean,
  p_now timestamptz, out fresh boolean[], out busy boolean[], out ended int)
language plpgsql
as $$
declare
  v_keys      text[];
  v_order_ids bigint[];
begin
  v_keys := array(
    select distinct request.key
    from unnest(p_idempotency_keys, p_over) as request (key, over) where request.over);
  v_order_ids := flashsale_data.lock_order_ids(p_order_ids, p_wait => false);
  if p_wait then
    perform from flashsale_data.payments p where p.idempotency_key = any (v_keys) for update;
  end if;
  ended := flashsale_data.end_waits(array(
    select p.idempotency_key from flashsale_data.payments p
    where p.idempotency_key = any (v_keys) and p.result || '' = 'stored'
      and (p.order_id in (select unnest(v_order_ids))) is true
    for update skip locked), p_now);

  select array_agg(request.fresh and not (request.over and request.is_recorded)), -- guard: key-still-taken
         array_agg(request.over and request.is_stored)
    into fresh, busy
  from (
    select r.fresh, r.over, p.idempotency_key is not null as is_recorded,
           coalesce(p.result || '' = 'stored', false) as is_stored
    from unnest(p_idempotency_keys, p_fresh, p_over) with ordinality as r (key, fresh, over, i)
    left join flashsale_data.payments p on r.over and p.idempotency_key = r.key
    order by r.i) request;
end
$$;
comment on function flashsale_data.free_keys(text[], boolean[], boolean[], bigint[], boolean, timestamptz) is
  'Frees the keys of stored webhooks whose wait is over, so that they can be used again';
