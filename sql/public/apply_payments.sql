-- Takes the payment provider's word: success, failed or cancelled, for an order.
-- What it does is in flashsale_data.settle_payments(). A webhook for an order
-- that is not there (yet) is stored, and applied when the order is created.
-- One row a request, in order.
--
-- Locks    idempotency keys (the provider's word for one event), orders by row
--          or by id, products, inbox, to commit.
-- Replays  a key that was taken before answers with the result that was
--          recorded; one that was stored, with what has become of it.
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
  v_now        timestamptz := clock_timestamp();
  -- by request
  v_faults     text[];
  v_amounts    numeric[];
  v_currencies text[];
  v_fresh      boolean[];
  v_taken      flashsale_data.current_payments[];
  v_forgotten  text[];
  v_swept      int;
  v_keys       text[];
  v_known      bigint[];
  v_unknown    bigint[];
  -- by request of a known order
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

  -- Of one key's requests the first is served; the others are its replays.
  select array_agg(r.fault is null and not r.taken and r.first order by r.i),
         array_agg(r.p) filter (where (r.p).result <> 'forgotten'),
         array_agg(r.key) filter (where (r.p).result = 'forgotten' and r.key = any (v_keys))
    into v_fresh, v_taken, v_forgotten
  from (
    select r.i, r.key, r.fault, p, coalesce(p.result <> 'forgotten', false) or not r.key = any (v_keys) as taken,
           r.i = min(r.i) over (partition by r.key, r.fault is null) as first
    from unnest(p_idempotency_keys, v_faults) with ordinality as r (key, fault, i)
    left join flashsale_data.current_payments p on p.idempotency_key = r.key) r;

  if true = any (v_fresh) then
    select l.known, l.unknown into v_known, v_unknown
    from flashsale_data.lock_orders(array(
      select r.order_id from unnest(p_order_ids, v_fresh) as r (order_id, fresh) where r.fresh)) l;

    -- Forgotten, and not swept yet: it makes way for what its key says now. Nobody
    -- waits for its lock: the sweep skips it, and no order wants it any more.
    if v_forgotten is not null then
      delete from flashsale_data.payments p
      where p.idempotency_key = any (v_forgotten) and p.result = 'stored';
      get diagnostics v_swept = row_count;
    end if;
    if cardinality(v_known) > 0 then
      select s.results, s.order_statuses into v_results, v_order_statuses
      from (
        select array_agg(r.key order by r.i) as keys, array_agg(r.order_id order by r.i) as order_ids,
               array_agg(r.status order by r.i) as statuses, array_agg(r.amount order by r.i) as amounts,
               array_agg(r.currency order by r.i) as currencies, array_agg(r.payload order by r.i) as payloads,
               array_agg(v_now) as received_ats
        from unnest(p_idempotency_keys, p_order_ids, p_statuses, v_amounts, v_currencies, p_payloads, v_fresh)
          with ordinality as r (key, order_id, status, amount, currency, payload, fresh, i)
        where r.fresh and r.order_id = any (v_known)) k
      cross join lateral flashsale_data.settle_payments(
        k.keys, k.order_ids, k.statuses, k.amounts, k.currencies, k.payloads, k.received_ats) s;
    end if;
    -- The inbox row is the last lock of all.
    update flashsale_data.inbox set stored = stored - v_swept where v_swept > 0;
    if cardinality(v_unknown) > 0 then
      perform flashsale_data.store_payments(
        array_agg(r.key order by r.i), array_agg(r.order_id order by r.i), array_agg(r.status order by r.i),
        array_agg(r.amount order by r.i), array_agg(r.currency order by r.i), array_agg(r.payload order by r.i))
      from unnest(p_idempotency_keys, p_order_ids, p_statuses, v_amounts, v_currencies, p_payloads, v_fresh)
        with ordinality as r (key, order_id, status, amount, currency, payload, fresh, i)
      where r.fresh and r.order_id = any (v_unknown);
    end if;
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
  -- The wait of a stored one may have ended since its key was found taken: its
  -- replay is told what was found.
  left join lateral (
    select n.* from flashsale_data.current_payments n
    where n.idempotency_key = r.key and n.result <> 'forgotten'
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
           is distinct from (r.order_id, r.status, r.amount, r.currency) then 'SA008' end as refusal) o
  order by r.i;
end
$$;
comment on function flashsale.apply_payments(int[], text[], bigint[], text[], jsonb[]) is
  'Takes the payment provider''s word for each order; one outcome row each';
revoke execute on function flashsale.apply_payments(int[], text[], bigint[], text[], jsonb[]) from public;
grant execute on function flashsale.apply_payments(int[], text[], bigint[], text[], jsonb[]) to flashsale_api;
