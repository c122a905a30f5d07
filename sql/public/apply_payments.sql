-- Applies the payment provider's webhooks: success, failed or cancelled, for an order.
-- What they do is in flashsale_data.settle_payments(). A webhook for an order that
-- does not exist (yet) is stored, and applied when the order is created; after
-- settings.inbox_keep it waits no longer (flashsale_data.end_waits()).
-- One row a request, in order.
--
-- Locks    idempotency keys (the provider's name of one event), orders by row or by
--          id, stored webhooks of these keys whose wait is over, products, inbox, to
--          commit.
-- Replays  a key that was taken before answers with the result that was recorded;
--          one that was stored, with what has become of it.
-- Refuses  SA008 idempotency_key_reused (another order, status, amount or
--          currency), SA009 invalid_request, SA011 inbox_full; 55P03 as in
--          place_holds. What is refused is not recorded.
create or replace function flashsale.apply_payments(
  p_request_nos int[], p_idempotency_keys text[], p_order_ids bigint[], p_statuses text[], p_payloads jsonb[])
returns table (request_no int, sqlstate text, detail text, replayed boolean,
               order_id bigint, status text, result text)
language plpgsql security definer
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan set jit = off
set enable_seqscan = off set enable_bitmapscan = off set enable_material = off
set enable_hashjoin = off set enable_mergejoin = off
as $$
#variable_conflict use_column
declare
  v_now        timestamptz;
  -- by request
  v_faults     text[];
  v_amounts    numeric[];
  v_currencies text[];
  v_fresh      boolean[];
  -- by key
  v_keys       text[];
  v_taken      flashsale_data.payments[];
  v_over       text[];
  v_over_ids   bigint[];
  v_busy       text[];
  v_wait       boolean;
  v_ended      int := 0;
  -- by order
  v_wanted     bigint[];
  v_known      bigint[] := array[]::bigint[];
  v_unknown    bigint[] := array[]::bigint[];
  -- by request of a known order, and of an unknown one
  v_news           flashsale_data.payments[];
  v_early          flashsale_data.payments[];
  v_results        text[];
  v_order_statuses text[];
begin
  perform flashsale_data.batch_size(cardinality(p_request_nos), array_dims(p_request_nos),
    array_dims(p_idempotency_keys), array_dims(p_order_ids), array_dims(p_statuses), array_dims(p_payloads));

  select array_agg(flashsale_data.payment_fault(r.key, r.order_id, r.status, r.payload) order by r.i)
    into v_faults
  from unnest(p_idempotency_keys, p_order_ids, p_statuses, p_payloads) with ordinality
    as r (key, order_id, status, payload, i);
  select array_agg(case when f is null then (r.payload ->> 'amount')::numeric end order by r.i),
         array_agg(case when f is null then r.payload ->> 'currency' end order by r.i)
    into v_amounts, v_currencies
  from unnest(p_payloads, v_faults) with ordinality as r (payload, f, i);

  v_keys := flashsale_data.lock_keys('payment', array(
    select r.key from unnest(p_idempotency_keys, v_faults) as r (key, fault) where r.fault is null));
  v_now := clock_timestamp();

  -- Of one key's requests the first is served; the others are its replays. A stored
  -- webhook whose wait is over makes way for what its key says now, unless it is a
  -- captured payment. Above READ COMMITTED the lock of its order's id tells (40001)
  -- whether an order has taken one that the snapshot shows as waiting.
  select array_agg(r.first -- guard: first-of-key
                   and r.fault is null and r.key = any (v_keys)
                   and ((r.p).idempotency_key is null or r.over and (r.p).status <> 'success') order by r.i),
         array_agg(r.p) filter (where (r.p).idempotency_key is not null),
         array_agg(r.key) filter (where r.over),
         array_agg((r.p).order_id) filter (where r.over),
         cardinality(p_request_nos) = 1 and bool_or(r.over and ((r.p).order_id, (r.p).status, (r.p).amount,
           (r.p).currency) is distinct from (r.order_id, r.status, r.amount, r.currency)),
         array_agg((r.p).order_id) filter (
           -- guard: webhook-replay-in-snapshot
           where (r.p).result = 'stored' and not r.over and flashsale_data.keeps_snapshot())
    into v_fresh, v_taken, v_over, v_over_ids, v_wait, v_wanted
  from (
    select r.i, r.key, r.order_id, r.status, r.amount, r.currency, r.fault, p, r.i = min(r.i) over (partition by r.key, r.fault is null) as first,
           p.result = 'stored' and p.wait_ends_at <= v_now and r.key = any (v_keys) as over
    from unnest(p_idempotency_keys, p_order_ids, p_statuses, v_amounts, v_currencies, v_faults) with ordinality
      as r (key, order_id, status, amount, currency, fault, i)
    left join flashsale_data.payments p on p.idempotency_key = r.key) r;

  v_wanted := v_wanted || array(
    select r.order_id from unnest(p_order_ids, v_fresh) as r (order_id, fresh) where r.fresh);
  -- One call holds no lock of an order while it waits for another: it waits for the id
  -- of the old webhook's order first, and for no other then.
  if v_wait then
    -- guard: one-order-at-a-time
    v_wanted := v_wanted || flashsale_data.lock_order_ids(v_over_ids, p_wait => true);
  end if;
  if cardinality(v_wanted) > 0 then
    select l.known, l.unknown into v_known, v_unknown from flashsale_data.lock_orders(v_wanted) l;
  end if;

  if v_over is not null then
    -- As long as a transaction that creates the order may yet apply the webhook, or a
    -- sweep that is open ends its wait, the webhook counts as stored. A request that
    -- its key would refuse for that is not answered before: it waits, or is busy.
    v_over_ids := flashsale_data.lock_order_ids(v_over_ids, p_wait => false);
    if v_wait then
      perform from flashsale_data.payments p where p.idempotency_key = any (v_over) for update;
    end if;
    v_ended := flashsale_data.end_waits(array(
      select p.idempotency_key from flashsale_data.payments p
      where p.idempotency_key = any (v_over) and p.result || '' = 'stored' and p.order_id = any (v_over_ids)
      for update skip locked), v_now);
    select array_agg(r.fresh and not (r.key = any (v_over) and exists ( -- guard: key-still-taken
             select from flashsale_data.payments p where p.idempotency_key = r.key)) order by r.i)
      into v_fresh
    from unnest(p_idempotency_keys, v_fresh) with ordinality as r (key, fresh, i);
    v_busy := array(
      select p.idempotency_key from flashsale_data.payments p
      where p.idempotency_key = any (v_over) and p.result || '' = 'stored');
    v_taken := array(
      select t from unnest(v_taken) t
      -- guard: key-deleted-by-call
      where not t.idempotency_key = any (v_over) or t.idempotency_key = any (v_busy));
  end if;

  if true = any (v_fresh) then
    select array_agg(r.payment order by r.i) filter (where r.order_id = any (v_known)),
           array_agg(r.payment order by r.i) filter (where r.order_id = any (v_unknown))
      into v_news, v_early
    from (
      select n.i, n.order_id,
             row(n.key, null, n.order_id, n.status, n.amount, n.currency, n.payload, v_now, null, null,
                 null)::flashsale_data.payments as payment
      from unnest(p_idempotency_keys, p_order_ids, p_statuses, v_amounts, v_currencies, p_payloads, v_fresh)
        with ordinality as n (key, order_id, status, amount, currency, payload, fresh, i)
      where n.fresh) r;
  end if;
  if v_news is not null then
    select s.results, s.order_statuses into v_results, v_order_statuses
    from flashsale_data.settle_payments(v_news) s;
  end if;
  -- The inbox row is the last lock of all.
  update flashsale_data.inbox set stored = stored - v_ended where v_ended > 0; -- guard: inbox-counter
  if v_early is not null then
    perform flashsale_data.store_payments(v_early);
  end if;

  -- Most calls: news of known orders, and no product was busy.
  if cardinality(v_results) = cardinality(p_request_nos) and array_position(v_results, null) is null then
    return query
    select r.request_no, null::text, null::text, false, r.order_id, r.order_status, r.result
    from unnest(p_request_nos, p_order_ids, v_order_statuses, v_results) with ordinality
      as r (request_no, order_id, order_status, result, i)
    order by r.i;
    return;
  end if;

  return query
  select p_request_nos[r.i], o.refusal,
         case o.refusal
           when 'SA008' then 'This idempotency key came with another order, status, amount or currency.'
           when 'SA009' then r.fault
           when 'SA011' then 'Too many webhooks wait for orders that do not exist.' end,
         o.refusal is null and not r.fresh,
         case when o.refusal is null then p.order_id end,
         case when o.refusal is null then p.order_status end,
         case when o.refusal is null then p.result end
  from unnest(p_idempotency_keys, p_order_ids, p_statuses, v_amounts, v_currencies, v_faults, v_fresh)
    with ordinality as r (key, order_id, status, amount, currency, fault, fresh, i)
  -- A sweep may have taken a stored one away since its key was found taken: its
  -- replay is told what was found.
  left join lateral (
    select n.* from flashsale_data.payments n where n.idempotency_key = r.key
    union all
    select t.* from unnest(v_taken) t where t.idempotency_key = r.key
    limit 1) p on true
  cross join lateral (
    select case
      when r.fault is not null then 'SA009'
      when not r.key = any (v_keys) then '55P03'
      -- Of its key's first request alone: the others' says what there was no room for.
      when p.idempotency_key is null and r.fresh and r.order_id = any (v_unknown) then 'SA011'
      when p.idempotency_key is null then '55P03'
      when (p.order_id, p.status, p.amount, p.currency)
           is distinct from (r.order_id, r.status, r.amount, r.currency)
        -- guard: payment-key-reused
        then case when r.key = any (v_busy) then '55P03' else 'SA008' end end as refusal) o
  order by r.i;
end
$$;
comment on function flashsale.apply_payments(int[], text[], bigint[], text[], jsonb[]) is
  'Applies the payment provider''s webhooks; one outcome row each';
revoke execute on function flashsale.apply_payments(int[], text[], bigint[], text[], jsonb[]) from public;
grant execute on function flashsale.apply_payments(int[], text[], bigint[], text[], jsonb[]) to flashsale_api;
