-- Extends each hold by settings.extension_time, at most settings.max_extensions times. p_expires_ats
-- are the ends that the callers have seen: so a call that is repeated extends a hold once. A hold
-- may be extended whatever its product's terms are by now. One row a request, in order.
--
-- Locks    holds, claims of buyers in limit groups, then products, to commit.
-- Replays  a hold that ends later than p_expires_ats says is returned as it stands.
-- Refuses  SA003 hold_not_found, SA004 hold_expired, SA005 hold_released, SA006 hold_already_used,
--          SA009 invalid_request, SA018 extension_refused (with expires_at: when the hold ends);
--          SA029 wrong_shard for the whole call; 55P03 and 40001 as in place_holds.
create or replace function flashsale.extend_holds(
  p_request_nos int[], p_hold_ids bigint[], p_expires_ats timestamptz[])
returns table (request_no int, sqlstate text, detail text, replayed boolean,
               hold_id bigint, product_id bigint, qty int, status text, expires_at timestamptz)
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
                     array_dims(p_hold_ids), array_dims(p_expires_ats));
  v_settings       flashsale_data.settings;
  v_now            timestamptz;
  -- by hold, found by the request's slot: its id if it is worth locking, its row, its product
  v_hold_slots     int[];
  v_hold_ids       bigint[];
  v_active         bigint[];
  v_holds          flashsale_data.holds[];
  v_hold           flashsale_data.holds;
  v_ctids          tid[];
  v_slots          int[];
  v_slot           int;
  v_buyers         text[];
  v_locked_claims  boolean[];
  v_ready          boolean[] := array[]::boolean[];
  v_extended       int[]     := array[]::int[];
  -- by product, found by the hold's slot
  v_products       bigint[];
  v_product_ctids  tid[];
  v_effective_nows timestamptz[];
  -- by request
  v_sqlstates      text[]    := array_fill(null::text, array[v_size]);
  v_replayed       boolean[] := array_fill(false, array[v_size]);
begin
  perform flashsale_data.reject_stale_snapshot(p_hold_ids => p_hold_ids);

  -- 1 Find the holds worth locking: ordered, released, expired and unknown are final
  select x.ids, x.slots into v_hold_ids, v_hold_slots
  from flashsale_data.index_ids(p_hold_ids) x;
  v_active := array(
    select case when h.status = 'active' then h.hold_id end
    from unnest(v_hold_ids) with ordinality as wanted (hold_id, slot)
    left join flashsale_data.holds h on h.hold_id = wanted.hold_id
    order by wanted.slot);

  if cardinality(array_remove(v_active, null)) > 0 then
    -- 2 Lock the holds, the claims of their buyers, their products; the clock is read last
    select l.holds, l.ctids into v_holds, v_ctids
    from flashsale_data.lock_holds(v_active) l;
    select x.ids, x.slots into v_products, v_slots
    from flashsale_data.index_ids(array(
      select case when h.status = 'active' then h.product_id end from unnest(v_holds) as h)) x;
    v_buyers := array(select h.buyer from unnest(v_holds) as h);
    select l.ctids, l.effective_nows, l.locked_claims into v_product_ctids, v_effective_nows, v_locked_claims
    from flashsale_data.lock_claimed_stock(v_products, v_slots, v_buyers) l;
    select * into v_settings from flashsale_data.settings;

    -- 3 Decide in array order
    for v_i in 1 .. v_size loop
      v_slot := v_hold_slots[v_i];
      v_hold := v_holds[v_slot];
      continue when v_hold.status is distinct from 'active' or v_product_ctids[v_slots[v_slot]] is null
        or v_locked_claims[v_slot];
      v_ready[v_slot] := true;
      v_sqlstates[v_i] := case
        when p_expires_ats[v_i] is null then 'SA009'
        when v_hold.expires_at <= v_effective_nows[v_slots[v_slot]] then 'SA004' -- guard: extension-in-time
        when v_hold.expires_at > p_expires_ats[v_i] then null
        when v_hold.expires_at < p_expires_ats[v_i] then 'SA018' -- guard: extension-of-seen-end
        when v_hold.extensions >= v_settings.max_extensions then 'SA018' end; -- guard: max-extensions
      continue when v_sqlstates[v_i] is not null;
      if v_hold.expires_at > p_expires_ats[v_i] then
        v_replayed[v_i] := true;
      else
        v_hold.expires_at := flashsale_data.expiry_instant(v_hold.expires_at + v_settings.extension_time);
        v_hold.extensions := v_hold.extensions + 1;
        if array_position(v_extended, v_slot) is null then
          v_extended := v_extended || v_slot;
        end if;
        v_holds[v_slot] := v_hold;
      end if;
    end loop;
  end if;

  -- 4 Write each table once
  if cardinality(v_extended) > 0 then
    perform flashsale_data.announce_ledger_write();
    -- The rows exist; on conflict finds them by their key (docs/design.md).
    insert into flashsale_data.lapses as l (product_id, lapses_at, held)
    select h.product_id, h.expires_at, sum(h.qty)
    from unnest(v_extended) as slot
    join flashsale_data.holds h on h.ctid = v_ctids[slot]
    group by 1, 2
    on conflict (product_id, lapses_at) do update set held = l.held - excluded.held;

    insert into flashsale_data.lapses as l (product_id, lapses_at, held)
    select (v_holds[slot]).product_id, (v_holds[slot]).expires_at, sum((v_holds[slot]).qty)
    from unnest(v_extended) as slot
    group by 1, 2
    on conflict (product_id, lapses_at) do update set held = l.held + excluded.held;

    update flashsale_data.holds h
    set expires_at = (v_holds[slot]).expires_at, extensions = (v_holds[slot]).extensions
    from unnest(v_extended) as slot
    where h.ctid = v_ctids[slot];

    update flashsale_data.claims c
    set ends_at = (v_holds[slot]).expires_at
    from unnest(v_extended) as slot
    where c.hold_id = (v_holds[slot]).hold_id; -- guard: claim-follows-extension

    -- The units stay held. A caller above READ COMMITTED whose snapshot has the old end gets 40001.
    update flashsale_data.stock s
    set version = s.version + 1
    from (select distinct v_slots[slot] as product_slot from unnest(v_extended) as slot) e
    where s.ctid = v_product_ctids[e.product_slot];

    insert into flashsale_data.events (kind, at, product_id, hold_id, data)
    select 'hold_extended', clock_timestamp(), (v_holds[slot]).product_id, (v_holds[slot]).hold_id,
           jsonb_build_object('expires_at', (v_holds[slot]).expires_at)
    from unnest(v_extended) as slot;
  end if;

  -- 5 One row a request
  v_now := flashsale_data.read_clock();
  return query
  select p_request_nos[request.i], outcome.refusal,
         case outcome.refusal
           when 'SA003' then format('There is no hold %s.', request.hold_id)
           when 'SA004' then format('Hold %s expired at %s.', request.hold_id, hold.expires_at)
           when 'SA005' then format('Hold %s was released.', request.hold_id)
           when 'SA006' then format('Hold %s has become an order.', request.hold_id)
           when 'SA009' then 'An extension needs a hold, and the end that its caller has seen.'
           when 'SA018' then
             case when hold.expires_at < request.expires_at
                  then format('Hold %s expires at %s, not at %s.', request.hold_id, hold.expires_at, request.expires_at)
                  else format('Hold %s has been extended as often as it may, and expires at %s.',
                              request.hold_id, hold.expires_at) end end,
         v_replayed[request.i] and outcome.refusal is null,
         hold.hold_id, hold.product_id, hold.qty, hold.status, hold.expires_at
  from unnest(p_hold_ids, p_expires_ats, v_hold_slots) with ordinality as request (hold_id, expires_at, slot, i)
  left join flashsale_data.holds_at(v_now) hold on hold.hold_id = request.hold_id
  cross join lateral (
    select case
      when v_ready[request.slot] then v_sqlstates[request.i]
      when request.hold_id is null or request.expires_at is null then 'SA009'
      when hold.hold_id is null then flashsale_data.not_found('SA003', request.hold_id)
      when hold.status = 'expired' then 'SA004'
      when hold.status = 'released' then 'SA005'
      when hold.status = 'ordered' then 'SA006'
      else '55P03' end as refusal
    offset 0) outcome
  order by request.i;
end
$$;
comment on function flashsale.extend_holds(int[], bigint[], timestamptz[]) is
  'Extends each hold before it lapses; one outcome row each';
revoke execute on function flashsale.extend_holds(int[], bigint[], timestamptz[]) from public;
grant execute on function flashsale.extend_holds(int[], bigint[], timestamptz[]) to flashsale_api;
