-- Applies the payment provider's webhooks: success, failed, cancelled or declined, for an order.
-- flashsale_data.settle_payments() decides their effect. A webhook for an order that does not
-- exist (yet) is stored, and applied when the order is created, unless settings.inbox_keep has
-- passed by then (flashsale_data.end_waits()); one that says declined is not stored, since it
-- would change nothing: its result is no_change, its order's status null. A rejected webhook (record_rejected_webhooks())
-- goes when its id, one of p_webhook_ids, is served. One row a request, in order.
--
-- Locks    idempotency keys (a payment and its outcome), orders by row or by id, stored
--          webhooks of these keys whose wait has ended, claims of buyers in limit groups, products,
--          inbox, rejected webhooks, to commit.
-- Replays  a key that was taken before returns the result that was recorded; one that was
--          stored, what has become of it.
-- Refuses  SA008 idempotency_key_reused (another order, status, amount or currency),
--          SA009 invalid_request, SA011 inbox_full; SA029 wrong_shard for the whole call; 55P03 as in place_holds. Refused webhooks
--          are not recorded here: see record_rejected_webhooks().
create or replace function flashsale.apply_payments(
  p_request_nos int[], p_idempotency_keys text[], p_order_ids bigint[], p_statuses text[], p_payloads jsonb[],
  p_webhook_ids text[] default null)
returns table (request_no int, sqlstate text, detail text, replayed boolean,
               order_id bigint, status text, result text)
language plpgsql security definer
set search_path = pg_catalog, pg_temp
-- planner settings: docs/design.md
set plan_cache_mode = force_generic_plan set jit = off
set enable_seqscan = off set enable_bitmapscan = off set enable_material = off
set enable_hashjoin = off set enable_mergejoin = off
as $$
#variable_conflict use_column
declare
  v_size             int := flashsale_data.batch_size(cardinality(p_request_nos), array_dims(p_request_nos),
                     array_dims(p_idempotency_keys), array_dims(p_order_ids), array_dims(p_statuses),
                     array_dims(p_payloads),
                     case when p_webhook_ids is null then array_dims(p_request_nos)
                          else array_dims(p_webhook_ids) end);
  v_shard_slots      int;
  v_now              timestamptz;
  v_keys             text[];
  v_given_keys       text[] := p_idempotency_keys;
  -- by request: its error; what its key has recorded, whether that is a stored webhook whose
  -- wait has ended, and whether such a one is locked elsewhere; whether to apply the request
  v_errors           text[];
  v_amounts          numeric[];
  v_currencies       text[];
  v_recorded         flashsale_data.payments[];
  v_wait_ended       boolean[];
  v_locked_elsewhere boolean[];
  v_to_apply         boolean[];
  v_order_slots      int[];
  -- by order, found by the request's slot
  v_order_ids        bigint[];
  v_orders           flashsale_data.orders[];
  v_ctids            tid[];
  v_absent           boolean[];
  -- of the call: the orders of stored webhooks whose wait has ended, whether to wait for them,
  -- and how many such webhooks have left the inbox
  v_ended_order_ids  bigint[];
  v_wait             boolean := false;
  v_ended            int := 0;
  -- new webhooks: those of known orders with their orders' slots, and those of unknown orders
  v_new_payments     flashsale_data.payments[];
  v_new_slots        int[];
  v_to_store         flashsale_data.payments[];
  v_results          text[];
  v_order_statuses   text[];
begin
  -- 1 Validate, lock the keys
  select array_agg(webhook.error),
         array_agg(case when webhook.error is null then (webhook.payload ->> 'amount')::numeric end),
         array_agg(case when webhook.error is null then upper(webhook.payload ->> 'currency' collate "C") end),
         (select s.slots from flashsale_data.shard s)
    into v_errors, v_amounts, v_currencies, v_shard_slots
  from (
    select r.payload, flashsale_data.webhook_error(r.key, r.order_id, r.status, r.payload) as error
    from unnest(p_idempotency_keys, p_order_ids, p_statuses, p_payloads) with ordinality
      as r (key, order_id, status, payload, i)
    order by r.i) webhook;
  if v_shard_slots > 1 then
    p_idempotency_keys := flashsale_data.slot_keys(p_idempotency_keys, p_order_ids);
  end if;
  v_keys := flashsale_data.lock_keys('payment', array(
    select r.key from unnest(p_idempotency_keys, v_errors) as r (key, error) where r.error is null));

  -- 2 Find what the keys have recorded
  v_now := clock_timestamp();
  select r.recorded, r.wait_ended, r.to_apply into v_recorded, v_wait_ended, v_to_apply
  from flashsale_data.recorded_payments(p_idempotency_keys, v_errors, v_keys, v_now) r;

  -- 3 Lock the orders
  v_order_ids := array(
    select case when r.to_apply then r.order_id end
    from unnest(p_order_ids, v_to_apply) as r (order_id, to_apply));
  -- The first of two declined webhooks with one new key leaves nothing that could answer the second.
  if 'declined' = any (p_statuses) then
    v_order_ids := array(
      select case when r.to_apply or r.status = 'declined' and r.is_new then r.order_id end -- guard: declined-twice
      from (
        select request.order_id, request.status, request.to_apply, request.i,
               request.error is null and recorded.idempotency_key is null
                 and request.key in (select unnest(v_keys)) as is_new
        from unnest(p_idempotency_keys, p_order_ids, p_statuses, v_errors, v_to_apply) with ordinality
          as request (key, order_id, status, error, to_apply, i)
        left join flashsale_data.payments recorded on recorded.idempotency_key = request.key
        offset 0) r
      order by r.i);
  end if;
  -- Above READ COMMITTED the lock on its order's id raises 40001 if an order has taken a
  -- webhook that the snapshot shows as stored.
  if flashsale_data.keeps_snapshot() then -- guard: webhook-replay-in-snapshot
    v_order_ids := v_order_ids || array(
      select (v_recorded[i]).order_id
      from generate_subscripts(v_recorded, 1) as i
      where (v_recorded[i]).result = 'stored' and not v_wait_ended[i]);
  end if;
  if true = any (v_wait_ended) then
    v_ended_order_ids := array(
      select distinct (v_recorded[r.i]).order_id
      from unnest(v_wait_ended) with ordinality as r (wait_ended, i) where r.wait_ended);
    -- A call holds no lock of an order while it waits for another: a request that its key
    -- would refuse waits for the old webhook's order first, and for no other then.
    v_wait := v_size = 1 and
      ((v_recorded[1]).order_id, (v_recorded[1]).status, (v_recorded[1]).amount, (v_recorded[1]).currency)
        is distinct from (p_order_ids[1], p_statuses[1], v_amounts[1], v_currencies[1]);
    if v_wait then
      -- guard: one-order-at-a-time
      v_order_ids := v_order_ids || flashsale_data.lock_order_ids(v_ended_order_ids, p_wait => true);
    end if;
  end if;
  if cardinality(array_remove(v_order_ids, null)) > 0 then
    select x.ids, x.slots into v_order_ids, v_order_slots
    from flashsale_data.index_ids(v_order_ids) x;
    select l.orders, l.ctids, l.absent into v_orders, v_ctids, v_absent
    from flashsale_data.lock_orders(v_order_ids) l;
    if true = any (v_absent) then
      perform flashsale_data.check_owned(v_order_ids); -- guard: unknown-order-owned
    end if;
  end if;

  -- 4 Free the keys of stored webhooks whose wait has ended
  if true = any (v_wait_ended) then
    select f.to_apply, f.locked_elsewhere, f.ended into v_to_apply, v_locked_elsewhere, v_ended
    from flashsale_data.free_keys(
      p_idempotency_keys, v_to_apply, v_wait_ended, v_ended_order_ids, v_wait, v_now) f;
  end if;

  -- 5 Apply the webhooks of known orders, store the others
  if true = any (v_to_apply) then
    select array_agg(r.payment) filter (where r.is_known),
           array_agg(r.slot) filter (where r.is_known),
           array_agg(r.payment) filter (where r.is_absent and (r.payment).status <> 'declined') -- guard: declined-not-stored
      into v_new_payments, v_new_slots, v_to_store
    from (
      select row(request.key, null, request.order_id, request.status, request.amount, request.currency,
                 request.payload, v_now, null, null, null, null, null, null)::flashsale_data.payments as payment,
             v_order_slots[request.i] as slot,
             v_ctids[v_order_slots[request.i]] is not null as is_known,
             v_absent[v_order_slots[request.i]] as is_absent
      from unnest(p_idempotency_keys, p_order_ids, p_statuses, v_amounts, v_currencies, p_payloads,
                  v_to_apply)
        with ordinality as request (key, order_id, status, amount, currency, payload, to_apply, i)
      where request.to_apply
      order by request.i) r;
  end if;
  if v_new_payments is not null then
    select s.results, s.order_statuses into v_results, v_order_statuses
    from flashsale_data.settle_payments(v_new_payments, v_new_slots, v_orders, v_ctids) s;
  end if;
  -- The inbox row is the last lock of all.
  update flashsale_data.inbox set stored = stored - v_ended where v_ended > 0; -- guard: inbox-counter
  if v_to_store is not null then
    perform flashsale_data.store_payments(v_to_store);
  end if;
  perform flashsale_data.resolve_rejected_webhooks(p_webhook_ids, v_errors, v_given_keys, p_idempotency_keys,
    p_order_ids, p_statuses, v_amounts, v_currencies);

  -- 6 One row a request
  -- Most calls: new webhooks of known orders, and no product was locked elsewhere.
  if cardinality(v_results) = v_size and array_position(v_results, null) is null then
    return query
    select request.request_no, null::text, null::text, false,
           request.order_id, request.order_status, request.result
    from unnest(p_request_nos, p_order_ids, v_order_statuses, v_results) with ordinality
      as request (request_no, order_id, order_status, result, i)
    order by request.i;
    return;
  end if;

  return query
  select p_request_nos[request.i], outcome.refusal,
         case outcome.refusal
           when 'SA008' then 'This idempotency key came with another order, status, amount or currency.'
           when 'SA009' then request.error
           when 'SA011' then 'Too many webhooks wait for orders that do not exist.' end,
         outcome.refusal is null and not request.to_apply and (payment.recorded).idempotency_key is not null,
         case when outcome.refusal is null then request.order_id end,
         case when outcome.refusal is null then (payment.recorded).order_status end,
         case when outcome.refusal is null then coalesce((payment.recorded).result, 'no_change') end
  from unnest(p_idempotency_keys, p_order_ids, p_statuses, v_amounts, v_currencies, v_errors, v_to_apply)
    with ordinality as request (key, order_id, status, amount, currency, error, to_apply, i)
  left join flashsale_data.payments p on p.idempotency_key = request.key
  -- A sweep may have removed a stored one since its key was found taken: its replay is
  -- answered by what was found.
  cross join lateral (
    select case
      when p.idempotency_key is not null then p
      -- guard: key-deleted-by-call
      when v_wait_ended[request.i] is not true or v_locked_elsewhere[request.i] then v_recorded[request.i]
      end as recorded
    offset 0) payment
  cross join lateral (
    select case
      when request.error is not null then 'SA009'
      when not request.key in (select unnest(v_keys)) then '55P03'
      when (payment.recorded).idempotency_key is null and request.status = 'declined'
           and v_absent[v_order_slots[request.i]] then null
      -- Only the first request of its key, the one to apply, is refused for want of room.
      when (payment.recorded).idempotency_key is null and request.to_apply
           and v_absent[v_order_slots[request.i]] then 'SA011'
      when (payment.recorded).idempotency_key is null then '55P03'
      when ((payment.recorded).order_id, (payment.recorded).status, (payment.recorded).amount,
            (payment.recorded).currency)
           is not distinct from (request.order_id, request.status, request.amount, request.currency) then null
      when v_locked_elsewhere[request.i] then '55P03' -- guard: payment-key-locked
      else 'SA008' end as refusal -- guard: payment-key-reused
    offset 0) outcome
  order by request.i;
end
$$;
comment on function flashsale.apply_payments(int[], text[], bigint[], text[], jsonb[], text[]) is
  'Applies the payment provider''s webhooks; one outcome row each';
revoke execute on function flashsale.apply_payments(int[], text[], bigint[], text[], jsonb[], text[]) from public;
grant execute on function flashsale.apply_payments(int[], text[], bigint[], text[], jsonb[], text[]) to flashsale_api;
