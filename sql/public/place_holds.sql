-- Reserves units: for each request qty units of a product, for settings.hold_time.
--
-- Serves the requests in array order, so the last units go to whoever came
-- first; one request's refusal touches no other. One row a request, in order.
--
-- Locks    idempotency keys, then products (stock rows), to commit. A product
--          that is sold out is refused without a lock or a write.
-- Replays  a key that has placed a hold answers with that hold as it now stands.
-- Refuses  SA001 product_not_found, SA002 insufficient_stock,
--          SA008 idempotency_key_reused, SA009 invalid_request.
--          55P03: another transaction has the product or key locked, and this
--          call had others to serve. Nothing was done; send it again. A call
--          with one request waits instead, as long as lock_timeout lets it.
--          40001 above READ COMMITTED, where the answer would rest on a snapshot
--          that is out of date.
create or replace function flashsale.place_holds(
  p_request_nos int[], p_product_ids bigint[], p_qtys int[], p_idempotency_keys text[])
returns table (request_no int, sqlstate text, detail text, replayed boolean,
               hold_id bigint, product_id bigint, qty int, status text, expires_at timestamptz,
               order_id bigint, order_status text)
language plpgsql security definer
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan set jit = off
set enable_seqscan = off set enable_bitmapscan = off set enable_material = off
set enable_hashjoin = off set enable_mergejoin = off
as $$
#variable_conflict use_column
declare
  v_size      int := flashsale_data.batch_size(cardinality(p_request_nos), array_dims(p_request_nos),
                array_dims(p_product_ids), array_dims(p_qtys), array_dims(p_idempotency_keys));
  -- by request
  v_sqlstates text[]        := array_fill(null::text, array[v_size]);
  v_details   text[]        := v_sqlstates;
  v_statuses  text[]        := v_sqlstates;
  v_hold_ids  bigint[]      := array_fill(null::bigint, array[v_size]);
  v_expires   timestamptz[] := array_fill(null::timestamptz, array[v_size]);
  v_replayed  boolean[]     := array_fill(false, array[v_size]);
  v_order_ids bigint[]      := v_hold_ids;
  v_order_statuses text[]   := v_sqlstates;
  v_placed    int[]         := array[]::int[];
  -- by request, if any has a key: the first one with this key, for that the one that
  -- has placed the key's hold, and the hold it placed before
  v_keyed     boolean := exists (select from unnest(p_idempotency_keys) k where k is not null);
  v_keys      text[];
  v_firsts    bigint[];
  v_placers   int[] := array_fill(null::int, array[v_size]);
  v_holds     flashsale_data.holds[];
  v_hold      flashsale_data.holds;
  v_orders    flashsale_data.orders[];
  v_placer    int;
  -- by product
  v_known     bigint[];
  v_wanted    bigint[];
  v_products  bigint[];
  v_places    tid[];
  v_available int[];
  v_nows      timestamptz[];
  v_lapse_at  timestamptz[];
  v_hold_time interval;
  v_p         int;
  -- of the call
  v_keeps_snapshot boolean := flashsale_data.keeps_snapshot();
  v_now       timestamptz;
begin
  if v_keyed then
    v_keys := flashsale_data.lock_keys('hold', p_idempotency_keys);
  end if;
  if v_keeps_snapshot then
    perform flashsale_data.reject_unseen(p_product_ids => p_product_ids, p_hold_keys => p_idempotency_keys);
  end if;

  -- Most requests of a sale find nothing left: that takes neither a lock nor a
  -- write. The counters alone show whether there is something to lock for; what has
  -- lapsed is summed up only where they show nothing. Above READ COMMITTED a product
  -- is locked in any case, for replays, too: the lock raises 40001 if anything of the
  -- product has changed since the snapshot.
  v_wanted := array(
    select p.product_id
    from flashsale_data.products p
    cross join lateral (
      select s.total_stock - s.held - s.awaiting - s.paid as free
      from flashsale_data.stock s
      where s.product_id = p.product_id
      order by s.version desc limit 1) s
    where p.product_id = any (p_product_ids)
      and (s.free > 0 or v_keeps_snapshot)); -- guard: sold-out-in-snapshot
  if not p_product_ids <@ v_wanted then
    v_now := flashsale_data.read_clock();
    select array_agg(s.product_id), v_wanted || array_agg(s.product_id) filter (where s.available > 0)
      into v_known, v_wanted
    from flashsale_data.stock_at(v_now) s
    where s.product_id = any (p_product_ids) and not s.product_id = any (v_wanted);
  end if;

  if cardinality(v_wanted) > 0 then
    select l.products, l.places, l.available, l.nows into v_products, v_places, v_available, v_nows
    from flashsale_data.lock_stock(v_wanted) l;
    select c.hold_time into v_hold_time from flashsale_data.settings c;
    for v_i in 1 .. coalesce(cardinality(v_products), 0) loop
      v_lapse_at[v_i] := flashsale_data.next_tenth(v_nows[v_i] + v_hold_time);
    end loop;
  end if;

  if v_keyed then
    -- Read after the locks, and judged by a time read before the rows.
    v_now := clock_timestamp();
    select array_agg(r.first order by r.i), array_agg(h order by r.i), array_agg(o order by r.i)
      into v_firsts, v_holds, v_orders
    from (
      select i, key, case when key is not null then min(i) over (partition by key) end
      from unnest(p_idempotency_keys) with ordinality as u (key, i)) as r (i, key, first)
    left join flashsale_data.holds_at(v_now) h on h.idempotency_key = r.key
    left join flashsale_data.orders_at(v_now) o on o.hold_id = h.hold_id;
  end if;

  for v_i in 1 .. v_size loop
    if v_keyed and p_idempotency_keys[v_i] is not null then
      v_hold := v_holds[v_i];
      v_placer := v_placers[v_firsts[v_i]];
      if length(p_idempotency_keys[v_i]) not between 1 and 255 then
        v_sqlstates[v_i] := 'SA009';
        v_details[v_i] := 'An idempotency key has 1 to 255 characters.';
        continue;
      elsif not p_idempotency_keys[v_i] = any (v_keys) then
        v_sqlstates[v_i] := '55P03';
        continue;
      elsif v_hold.hold_id is not null then
        -- guard: hold-key-reused
        if (v_hold.product_id, v_hold.qty) is distinct from (p_product_ids[v_i], p_qtys[v_i]) then
          v_sqlstates[v_i] := 'SA008';
          v_details[v_i] := 'This idempotency key has placed a hold for another product or quantity.';
        elsif v_keeps_snapshot and not coalesce(v_hold.product_id = any (v_products), false) then
          v_sqlstates[v_i] := '55P03';
        else
          v_hold_ids[v_i] := v_hold.hold_id;
          v_statuses[v_i] := v_hold.status;
          v_expires[v_i] := v_hold.expires_at;
          v_order_ids[v_i] := v_orders[v_i].order_id;
          v_order_statuses[v_i] := v_orders[v_i].status;
          v_replayed[v_i] := true;
        end if;
        continue;
      elsif v_placer is not null then
        if (p_product_ids[v_placer], p_qtys[v_placer]) is distinct from (p_product_ids[v_i], p_qtys[v_i]) then
          v_sqlstates[v_i] := 'SA008';
          v_details[v_i] := 'This idempotency key came with another product or quantity.';
        else
          v_hold_ids[v_i] := v_hold_ids[v_placer];
          v_statuses[v_i] := v_statuses[v_placer];
          v_expires[v_i] := v_expires[v_placer];
          v_replayed[v_i] := true;
        end if;
        continue;
      end if;
    end if;

    v_p := array_position(v_products, p_product_ids[v_i]);
    if p_product_ids[v_i] is null or p_qtys[v_i] is null or p_qtys[v_i] < 1 then
      v_sqlstates[v_i] := 'SA009';
      v_details[v_i] := 'A hold needs a product and a quantity of at least 1.';
    elsif p_qtys[v_i] <= v_available[v_p] then -- guard: units-left
      v_available[v_p] := v_available[v_p] - p_qtys[v_i]; -- guard: units-left-in-batch
      v_hold_ids[v_i] := flashsale_data.new_hold_id();
      v_statuses[v_i] := 'active';
      v_expires[v_i] := v_lapse_at[v_p];
      v_placed := v_placed || v_i;
      if p_idempotency_keys[v_i] is not null then
        v_placers[v_firsts[v_i]] := v_i;
      end if;
    elsif v_p is not null then
      v_sqlstates[v_i] := 'SA002';
      v_details[v_i] := format('Product %s has %s available, not %s.',
        p_product_ids[v_i], v_available[v_p], p_qtys[v_i]);
    elsif p_product_ids[v_i] = any (v_wanted) then
      v_sqlstates[v_i] := '55P03';
    elsif p_product_ids[v_i] = any (v_known) then
      v_sqlstates[v_i] := 'SA002';
      v_details[v_i] := format('Product %s is sold out.', p_product_ids[v_i]);
    else
      v_sqlstates[v_i] := 'SA001';
      v_details[v_i] := format('There is no product %s.', p_product_ids[v_i]);
    end if;
  end loop;

  if cardinality(v_placed) > 0 then
    perform flashsale_data.open_ledger();
    with placed as materialized (
      select v_hold_ids[i] as hold_id, p_product_ids[i] as product_id, p_qtys[i] as qty,
             v_expires[i] as expires_at, p_idempotency_keys[i] as idempotency_key
      from unnest(v_placed) as i
    ), held as (
      -- A key that is in use after all is an error (23505), never skipped.
      insert into flashsale_data.holds (hold_id, product_id, qty, placed_at, expires_at, idempotency_key)
      select r.hold_id, r.product_id, r.qty, clock_timestamp(), r.expires_at, r.idempotency_key
      from placed r -- guard: hold-recorded
    ), recorded as (
      insert into flashsale_data.events (kind, at, product_id, hold_id, available_delta)
      select 'hold_placed', clock_timestamp(), r.product_id, r.hold_id,
             -r.qty -- guard: hold-in-ledger
      from placed r
    ), lapsing as (
      insert into flashsale_data.lapses as l (product_id, lapses_at, held)
      select r.product_id, r.expires_at, sum(r.qty) from placed r group by 1, 2
      on conflict (product_id, lapses_at) do update set held = l.held + excluded.held -- guard: lapses-add-up
    )
    update flashsale_data.stock s
    set version = s.version + 1, held = s.held + r.qty
    from (select r.product_id, sum(r.qty)::int as qty from placed r group by 1) r
    join unnest(v_products, v_places) as locked (product_id, place) using (product_id)
    where s.ctid = locked.place;
  end if;

  return query
  select * from unnest(p_request_nos, v_sqlstates, v_details, v_replayed,
                       v_hold_ids, p_product_ids, p_qtys, v_statuses, v_expires,
                       v_order_ids, v_order_statuses);
end
$$;
comment on function flashsale.place_holds(int[], bigint[], int[], text[]) is
  'Reserves units for each request, in array order; one outcome row each';
revoke execute on function flashsale.place_holds(int[], bigint[], int[], text[]) from public;
grant execute on function flashsale.place_holds(int[], bigint[], int[], text[]) to flashsale_api;
