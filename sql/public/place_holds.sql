-- Reserves units: for each request qty units of a product, for its hold time (the product's own, or
-- settings.hold_time). p_buyers says for whom, by an opaque text that the caller vouches for.
--
-- Requests are served in array order, so that the first ones get the last units; the refusal
-- of one request affects no other. A hold keeps the price that its product has under the lock,
-- and is judged by the terms under the lock: once a change of them has committed, no hold is
-- placed by the old ones. A limit counts what the buyer has in holds, pending and paid orders of
-- the product, or of its limit group; what has lapsed counts no more from its instant on.
-- One row a request, in order.
--
-- Locks    idempotency keys, claims of buyers in limit groups, then products (stock rows), to
--          commit. Requests for a product that is sold out, or not on sale at this moment, are
--          refused without a lock or a write.
-- Replays  a key that has placed a hold returns that hold as it now stands, to the same buyer.
-- Refuses  SA001 product_not_found, SA002 insufficient_stock, SA008 idempotency_key_reused,
--          SA009 invalid_request, SA012 sale_not_started, SA013 sale_ended, SA014 sale_paused,
--          SA015 sale_cancelled, SA016 buyer_required, SA017 limit_reached. members has what a
--          refusal says beside its sentence: starts_at and retry_after (1 to 60 seconds), ends_at,
--          or the limit that was reached, what the buyer has taken of it, and what is remaining (of
--          the limit of a hold: nothing is taken). One column, since each costs a call of one hold 1 %.
--          SA029 wrong_shard, for the whole call, if a product is of a slot that another shard has.
--          55P03: another transaction has locked the request's key, product or claims. Nothing was done
--          for the request; send it again. A call serves the keys, claims and products that
--          it can lock at once. If it can lock none, it waits for one, and fails as a whole with
--          55P03 after lock_timeout: so a call of one request waits.
--          40001 above READ COMMITTED, where the result would rest on an outdated snapshot.
create or replace function flashsale.place_holds(
  p_request_nos int[], p_product_ids bigint[], p_qtys int[], p_idempotency_keys text[],
  p_buyers text[] default null)
returns table (request_no int, sqlstate text, detail text, replayed boolean,
               hold_id bigint, product_id bigint, qty int, status text, expires_at timestamptz,
               order_id bigint, order_status text,
               members jsonb)
language plpgsql security definer
set search_path = pg_catalog, pg_temp
-- planner settings: docs/design.md
set plan_cache_mode = force_generic_plan set jit = off
set enable_seqscan = off set enable_bitmapscan = off set enable_material = off
set enable_hashjoin = off set enable_mergejoin = off
as $$
#variable_conflict use_column
declare
  v_size           int := flashsale_data.batch_size(cardinality(p_request_nos), array_dims(p_request_nos),
                     array_dims(p_product_ids), array_dims(p_qtys), array_dims(p_idempotency_keys));
  v_keeps_snapshot boolean := flashsale_data.keeps_snapshot();
  v_now            timestamptz;
  v_index          record;
  v_worth          record;
  v_stock          record;
  v_replays        record;
  -- by request
  v_sqlstates      text[];
  v_hold_ids       bigint[];
  v_details        text[];
  v_replayed       boolean[];
  v_slots          int[];
  v_slot           int;
  v_refusal        text;
  v_hold_id        bigint;
  v_placed         int[]    := array[]::int[];
  -- by request, if any has a key: the hold that the key has placed before, its order, the
  -- key's slot
  v_keyed          boolean  := cardinality(array_remove(p_idempotency_keys, null)) > 0;
  v_keys           text[];
  v_holds          flashsale_data.holds[];
  v_orders         flashsale_data.orders[];
  v_key_slots      int[];
  -- by key, found by the request's key slot: the request of this call that has placed its hold
  v_placed_by      int[];
  v_earlier        int;
  -- of a call with buyers or about products with terms (most are not: one flag, since each
  -- expression costs a call of one hold 1 %), by request: why the terms refuse it, its claim slot,
  -- whether its claims are locked elsewhere; by claim slot: the units that the buyer has
  v_judged         boolean;
  v_terms          record;
  v_denial         text;
  v_claim_slots    int[];
  v_claim_slot     int;
  v_locked_claims  boolean[];
  v_taken          int[];
  -- and what a refusal says beside its sentence
  v_members        jsonb[];
  -- by product, found by the request's slot: its row, if it has terms, and the scope of claims on it
  v_products       flashsale_data.products[];
  v_sale_statuses  text[];
  v_max_per_buyers int[];
  v_max_per_holds  int[];
  v_scopes         text[];
  -- by product, found by the request's slot
  v_ids_to_lock    bigint[];
  v_existing       boolean[];
  v_ctids          tid[];
  v_available      int[];
  v_effective_nows timestamptz[];
  v_expiries       timestamptz[];
  v_currencies     text[];
  v_prices         numeric[];
  v_shard_slots    int;
  -- of the product, if it is only one
  v_expires_at     timestamptz;
  v_currency       text;
  v_price          numeric;
begin
  -- 1 Lock the keys
  if v_keyed then
    v_keys := flashsale_data.lock_keys('hold', p_idempotency_keys);
  end if;
  if v_keeps_snapshot then
    perform flashsale_data.reject_stale_snapshot(
      p_product_ids => p_product_ids,
      p_hold_keys => flashsale_data.slot_keys(p_idempotency_keys, p_product_ids));
  end if;

  -- 2 Lock the claims of buyers and the products worth locking; read the clock
  -- Assignments: select into would start the executor for each, 1 % of a call of one hold.
  v_index := flashsale_data.index_ids(p_product_ids);
  v_slots := v_index.slots;
  v_worth := flashsale_data.products_worth_locking(v_index.ids);
  v_ids_to_lock := v_worth.ids_to_lock;
  v_existing := v_worth.existing;
  if p_buyers is not null or v_worth.closed is not null then
    v_judged := true;
    if p_buyers is not null then
      perform flashsale_data.batch_size(v_size, array_dims(p_buyers));
      perform flashsale_data.lock_claims(v_ids_to_lock, v_slots, p_buyers); -- guard: claim-before-product
    end if;
  end if;
  if cardinality(array_remove(v_ids_to_lock, null)) > 0 then
    v_stock := flashsale_data.lock_stock(v_ids_to_lock); -- guard: price-after-lock
    v_ctids := v_stock.ctids;
    v_available := v_stock.available;
    v_effective_nows := v_stock.effective_nows;
    -- A statement of its own, after the locks: change_price() and change_terms() take the same
    -- lock, so that this snapshot has the last change that has committed. Most calls are about
    -- one product: arrays would cost such a call 3 %.
    if cardinality(v_ids_to_lock) = 1 then
      select flashsale_data.expiry_instant(v_effective_nows[1] + coalesce(p.hold_time, s.hold_time)),
             p.currency, p.has_terms or v_judged, p.price, shard.slots
        into v_expires_at, v_currency, v_judged, v_price, v_shard_slots -- guard: price-after-lock
      from flashsale_data.settings s cross join flashsale_data.shard cross join flashsale_data.products p
      where p.product_id = v_ids_to_lock[1];
      v_expiries := array[v_expires_at];
    else
      select array_agg(product.expires_at), array_agg(product.currency), array_agg(product.price),
             coalesce(bool_or(product.has_terms), false) or v_judged, max(product.slots)
        into v_expiries, v_currencies, v_prices, v_judged, v_shard_slots
      from (
        select flashsale_data.expiry_instant(locked.effective_now + coalesce(p.hold_time, s.hold_time))
                 as expires_at,
               p.currency, p.price, p.has_terms, shard.slots
        from unnest(v_ids_to_lock, v_effective_nows) with ordinality
          as locked (product_id, effective_now, slot)
        cross join flashsale_data.settings s
        cross join flashsale_data.shard
        left join flashsale_data.products p on p.product_id = locked.product_id
        order by locked.slot) product;
    end if;
  end if;
  if v_judged then
    if v_ctids is not null then
      v_terms := flashsale_data.terms_in_force(v_ids_to_lock, v_effective_nows, v_slots, p_buyers);
      v_products := v_terms.products;
      v_sale_statuses := v_terms.sale_statuses;
      v_max_per_buyers := v_terms.max_per_buyers;
      v_max_per_holds := v_terms.max_per_holds;
      v_scopes := v_terms.scopes;
      v_claim_slots := v_terms.claim_slots;
      v_taken := v_terms.taken;
      v_locked_claims := v_terms.locked_elsewhere;
    end if;
    for v_i in 1 .. coalesce(cardinality(v_worth.closed), 0) loop
      if (v_worth.closed[v_i]).product_id is not null then
        v_products[v_i] := v_worth.closed[v_i];
        -- One that has opened since was scheduled then.
        v_sale_statuses[v_i] := coalesce(nullif(flashsale_data.sale_status((v_products[v_i]).starts_at,
          (v_products[v_i]).ends_at, (v_products[v_i]).paused, (v_products[v_i]).cancelled, clock_timestamp()), 'open'), 'scheduled');
      end if;
    end loop;
  end if;

  -- 3 Find what the keys have placed: read after the locks, judged by a time read before the rows
  if v_keyed then
    if v_shard_slots is null then
      v_shard_slots := (select s.slots from flashsale_data.shard s);
    end if;
    if v_shard_slots > 1 then
      v_keys := array_remove(flashsale_data.slot_keys(array(
        select case when r.key in (select unnest(v_keys)) then r.key end
        from unnest(p_idempotency_keys) with ordinality as r (key, i)
        order by r.i), p_product_ids), null);
      p_idempotency_keys := flashsale_data.slot_keys(p_idempotency_keys, p_product_ids);
    end if;
    v_now := clock_timestamp();
    v_replays := flashsale_data.replayed_holds(
      p_product_ids, p_qtys, p_buyers, p_idempotency_keys, v_keys, v_now);
    v_key_slots := v_replays.key_slots;
    v_sqlstates := v_replays.sqlstates;
    v_holds := v_replays.holds;
    v_orders := v_replays.orders;
    v_placed_by := array_fill(null::int, array[v_size]);
  end if;

  -- 4 Decide in array order
  for v_i in 1 .. v_size loop
    v_slot := v_slots[v_i];
    if v_keyed then
      v_refusal := v_sqlstates[v_i];
      v_hold_id := (v_holds[v_i]).hold_id;
      v_earlier := v_placed_by[v_key_slots[v_i]];
    end if;
    if v_judged then
      -- What the request before has placed counts.
      if v_placed[cardinality(v_placed)] = v_i - 1 and v_claim_slot is not null then
        v_taken[v_claim_slot] := v_taken[v_claim_slot] + p_qtys[v_i - 1]; -- guard: limit-in-batch
      end if;
      v_claim_slot := v_claim_slots[v_i];
      v_denial := case
        when length(p_buyers[v_i]) not between 1 and 255 then 'SA009'
        when v_sale_statuses[v_slot] = 'cancelled' then 'SA015'
        when v_sale_statuses[v_slot] = 'scheduled' then 'SA012'
        when v_sale_statuses[v_slot] = 'ended' then 'SA013'
        when v_sale_statuses[v_slot] = 'paused' then 'SA014' -- guard: sale-paused
        when v_locked_claims[v_i] then '55P03'
        when v_available[v_slot] <= 0 then 'SA002'
        when v_max_per_buyers[v_slot] is not null and p_buyers[v_i] is null then 'SA016' -- guard: buyer-required
        when p_qtys[v_i] > v_max_per_holds[v_slot] then 'SA017' -- guard: max-per-hold
        when p_qtys[v_i] > v_max_per_buyers[v_slot] - v_taken[v_claim_slot] then 'SA017' end; -- guard: limit-reached
    end if;

    v_refusal := case
      when v_refusal is not null then v_refusal
      when v_hold_id is not null then
        case when v_keeps_snapshot and v_ctids[v_slot] is null then '55P03' end
      when v_earlier is not null then
        case when (p_product_ids[v_earlier], p_qtys[v_earlier], p_buyers[v_earlier])
                  is distinct from (p_product_ids[v_i], p_qtys[v_i], p_buyers[v_i]) then 'SA008' end
      when p_product_ids[v_i] is null or p_qtys[v_i] is null or p_qtys[v_i] < 1 then 'SA009'
      when v_denial is not null then v_denial
      when p_qtys[v_i] <= v_available[v_slot] then null -- guard: units-left
      when v_ctids[v_slot] is not null then 'SA002'
      when v_ids_to_lock[v_slot] is not null then '55P03'
      when v_existing[v_slot] then 'SA002'
      else 'SA001' end;

    if v_refusal is not null then
      v_sqlstates[v_i] := v_refusal;
      v_details[v_i] := case v_refusal
        when 'SA001' then format('There is no product %s.', p_product_ids[v_i])
        when 'SA002' then
          case when v_available[v_slot] > 0
               then format('Product %s has %s available, not %s.',
                           p_product_ids[v_i], v_available[v_slot], p_qtys[v_i])
               else format('Product %s is sold out.', p_product_ids[v_i]) end
        when 'SA008' then 'This idempotency key came with another product, quantity or buyer.'
        when 'SA009' then
          case when length(p_idempotency_keys[v_i]) not between 1 and 255
               then 'An idempotency key has 1 to 255 characters.'
               when length(p_buyers[v_i]) not between 1 and 255
               then 'A buyer is a text of 1 to 255 characters.'
               else 'A hold needs a product and a quantity of at least 1.' end end;
      if v_refusal = v_denial then
        case v_refusal
          when 'SA012' then
            v_members[v_i] := jsonb_build_object(
              'starts_at', (v_products[v_slot]).starts_at,
              'retry_after', flashsale_data.seconds_until((v_products[v_slot]).starts_at));
            v_details[v_i] := format('The sale of product %s starts at %s.', p_product_ids[v_i],
              (v_products[v_slot]).starts_at);
          when 'SA013' then
            v_members[v_i] := jsonb_build_object('ends_at', (v_products[v_slot]).ends_at);
            v_details[v_i] := format('The sale of product %s ended at %s.', p_product_ids[v_i],
              (v_products[v_slot]).ends_at);
          when 'SA014' then
            v_details[v_i] := format('The sale of product %s is paused.', p_product_ids[v_i]);
          when 'SA015' then
            v_details[v_i] := format('The sale of product %s was cancelled.', p_product_ids[v_i]);
          when 'SA016' then
            v_details[v_i] := format('Product %s has a limit for each buyer, and the request names none.',
              p_product_ids[v_i]);
          when 'SA017' then
            if p_qtys[v_i] > v_max_per_holds[v_slot] then
              v_members[v_i] := jsonb_build_object(
                'limit', v_max_per_holds[v_slot], 'taken', 0, 'remaining', v_max_per_holds[v_slot]);
              v_details[v_i] := format('A hold of product %s has at most %s units, not %s.',
                p_product_ids[v_i], v_max_per_holds[v_slot], p_qtys[v_i]);
            else
              v_members[v_i] := jsonb_build_object(
                'limit', v_max_per_buyers[v_slot], 'taken', v_taken[v_claim_slot],
                'remaining', greatest(v_max_per_buyers[v_slot] - v_taken[v_claim_slot], 0));
              v_details[v_i] := format('A buyer gets at most %s of product %s; this one has %s and wants %s more.',
                v_max_per_buyers[v_slot], p_product_ids[v_i], v_taken[v_claim_slot], p_qtys[v_i]);
            end if;
          else null;
        end case;
      end if;
      v_refusal := null;
    elsif v_earlier is not null then
      v_hold_ids[v_i] := v_hold_ids[v_earlier];
      v_replayed[v_i] := true;
    elsif v_hold_id is not null then
      v_hold_ids[v_i] := v_hold_id;
      v_replayed[v_i] := true;
    else
      v_available[v_slot] := v_available[v_slot] - p_qtys[v_i]; -- guard: units-left-in-batch
      v_hold_ids[v_i] := flashsale_data.new_hold_id();
      v_placed := v_placed || v_i;
      if v_keyed and v_key_slots[v_i] is not null then
        v_placed_by[v_key_slots[v_i]] := v_i;
      end if;
    end if;
  end loop;

  -- 5 Write each table once
  if cardinality(v_placed) > 0 then
    if v_shard_slots > 1 then
      v_hold_ids := flashsale_data.slot_hold_ids(v_hold_ids, p_product_ids, v_shard_slots);
    end if;
    perform flashsale_data.announce_ledger_write();
    with placed as materialized (
      select v_hold_ids[i] as hold_id, p_product_ids[i] as product_id, p_qtys[i] as qty,
             v_expiries[v_slots[i]] as expires_at, v_slots[i] as slot, p_idempotency_keys[i] as idempotency_key,
             p_buyers[i] as buyer
      from unnest(v_placed) as i
    ), held as (
      -- A key that is in use after all is an error (23505), never skipped.
      insert into flashsale_data.holds
        (hold_id, product_id, qty, placed_at, expires_at, idempotency_key, currency, price, buyer)
      -- Placed at the time by which it was judged.
      select p.hold_id, p.product_id, p.qty, v_effective_nows[p.slot], p.expires_at, p.idempotency_key,
             -- guard: price-of-hold
             coalesce(v_currency, v_currencies[p.slot]), coalesce(v_price, v_prices[p.slot]), p.buyer
      from placed p -- guard: hold-recorded
    ), recorded as (
      insert into flashsale_data.events (kind, at, product_id, hold_id, available_delta)
      select 'hold_placed', clock_timestamp(), p.product_id, p.hold_id,
             -p.qty -- guard: hold-in-ledger
      from placed p
    ), lapsing as (
      insert into flashsale_data.lapses as l (product_id, lapses_at, held)
      select p.product_id, p.expires_at, sum(p.qty) from placed p group by 1, 2
      on conflict (product_id, lapses_at) do update set held = l.held + excluded.held -- guard: lapses-add-up
    )
    update flashsale_data.stock s
    set version = s.version + 1, held = s.held + p.qty
    from (select p.slot, sum(p.qty)::int as qty from placed p group by 1) p
    where s.ctid = v_ctids[p.slot];
    if v_judged then
      insert into flashsale_data.claims (hold_id, scope, buyer, ends_at, product_id, qty)
      select v_hold_ids[i], v_scopes[v_slots[i]], p_buyers[i], v_expiries[v_slots[i]], p_product_ids[i], p_qtys[i]
      from unnest(v_placed) as i
      where v_claim_slots[i] is not null; -- guard: claim-recorded
    end if;
  end if;

  -- 6 One row a request
  -- Most calls: every request has placed a hold.
  if cardinality(v_placed) = v_size then
    return query
    select request.request_no, null::text, null::text, false,
           request.hold_id, request.product_id, request.qty, 'active', v_expiries[request.slot],
           null::bigint, null::text, null::jsonb
    from unnest(p_request_nos, v_hold_ids, p_product_ids, p_qtys, v_slots)
      as request (request_no, hold_id, product_id, qty, slot);
    return;
  end if;

  return query
  select request.request_no, v_sqlstates[request.i], v_details[request.i],
         coalesce(v_replayed[request.i], false), v_hold_ids[request.i], request.product_id, request.qty,
         case when v_hold_ids[request.i] is not null then coalesce((v_holds[request.i]).status, 'active') end,
         case when v_hold_ids[request.i] is not null
              then coalesce((v_holds[request.i]).expires_at, v_expiries[v_slots[request.i]]) end,
         case when v_hold_ids[request.i] is not null then (v_orders[request.i]).order_id end,
         case when v_hold_ids[request.i] is not null then (v_orders[request.i]).status end,
         v_members[request.i]
  from unnest(p_request_nos, p_product_ids, p_qtys) with ordinality as request (request_no, product_id, qty, i)
  order by request.i;
end
$$;
comment on function flashsale.place_holds(int[], bigint[], int[], text[], text[]) is
  'Reserves units for each request, in array order; one outcome row each';
revoke execute on function flashsale.place_holds(int[], bigint[], int[], text[], text[]) from public;
grant execute on function flashsale.place_holds(int[], bigint[], int[], text[], text[]) to flashsale_api;
