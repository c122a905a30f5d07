-- Returns the units of each hold to stock. Releasing a released hold again succeeds and has no
-- effect. One row a request, in order.
--
-- Locks    holds, claims of buyers in limit groups, then products, to commit.
-- Refuses  SA003 hold_not_found, SA004 hold_expired, SA006 hold_already_used,
--          SA009 invalid_request; SA029 wrong_shard for the whole call; 55P03 and 40001 as in place_holds.
create or replace function flashsale.release_holds(p_request_nos int[], p_hold_ids bigint[])
returns table (request_no int, sqlstate text, detail text, hold_id bigint, status text)
language plpgsql security definer
set search_path = pg_catalog, pg_temp
-- planner settings: docs/design.md
set plan_cache_mode = force_generic_plan set jit = off
set enable_seqscan = off set enable_bitmapscan = off set enable_material = off
set enable_hashjoin = off set enable_mergejoin = off
as $$
#variable_conflict use_column
declare
  v_now              timestamptz;
  -- by hold, found by the request's slot: its id if it is worth locking, its row, its product
  v_hold_slots       int[];
  v_hold_ids         bigint[];
  v_active           bigint[];
  v_holds            flashsale_data.holds[];
  v_ctids            tid[];
  v_slots            int[];
  v_locked_elsewhere boolean[];
  v_product_ids      bigint[];
  v_buyers           text[];
  v_has_buyers       boolean;
  v_locked_claims    boolean[];
  v_released         int[];
  -- by product, found by the hold's slot
  v_products         bigint[];
  v_product_ctids    tid[];
  v_effective_nows   timestamptz[];
begin
  perform flashsale_data.batch_size(cardinality(p_request_nos), array_dims(p_request_nos),
    array_dims(p_hold_ids));
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
    select array_agg(case when h.status = 'active' then h.product_id end), array_agg(h.buyer),
           bool_or(h.buyer is not null)
      into v_product_ids, v_buyers, v_has_buyers
    from unnest(v_holds) as h;
    select x.ids, x.slots into v_products, v_slots
    from flashsale_data.index_ids(v_product_ids) x;
    select l.ctids, l.effective_nows, l.locked_claims into v_product_ctids, v_effective_nows, v_locked_claims
    from flashsale_data.lock_claimed_stock(v_products, v_slots, v_buyers) l;

    -- 3 Decide
    select array_agg(hold.slot::int) filter (where hold.status = 'active'
                                               and hold.expires_at > v_effective_nows[v_slots[hold.slot]]
                                               and v_locked_claims[hold.slot] is not true),
           array_agg(v_active[hold.slot] is not null and (
             v_ctids[hold.slot] is null
             or hold.status = 'active' and (v_product_ctids[v_slots[hold.slot]] is null
                                              or v_locked_claims[hold.slot] is true)))
      into v_released, v_locked_elsewhere
    from unnest(v_holds) with ordinality
      as hold (hold_id, product_id, qty, status, placed_at, expires_at, idempotency_key, currency,
               price, buyer, extensions, slot);
  end if;

  -- 4 Write each table once
  if v_released is not null then
    perform flashsale_data.announce_ledger_write();
    with released as (
      update flashsale_data.holds h
      set status = 'released'
      from unnest(v_released) as slot
      where h.ctid = v_ctids[slot]
      returning h.hold_id, h.product_id, h.qty, h.expires_at
    ), recorded as (
      insert into flashsale_data.events (kind, at, product_id, hold_id, available_delta)
      select 'hold_released', clock_timestamp(), r.product_id, r.hold_id, r.qty
      from released r
    ), lapsing as (
      -- The rows exist; on conflict finds them by their key (docs/design.md).
      insert into flashsale_data.lapses as l (product_id, lapses_at, held)
      select r.product_id, r.expires_at, sum(r.qty) from released r group by 1, 2
      on conflict (product_id, lapses_at) do update set held = l.held - excluded.held
    )
    update flashsale_data.stock s
    set held = s.held - r.qty, -- guard: release-returns-units
        version = s.version + 1
    from (
      select v_slots[slot] as product_slot, sum((v_holds[slot]).qty)::int as qty
      from unnest(v_released) as slot group by 1) r
    where s.ctid = v_product_ctids[r.product_slot];
    if v_has_buyers then
      delete from flashsale_data.claims c
      using unnest(v_released) as slot
      where c.hold_id = (v_holds[slot]).hold_id; -- guard: claim-follows-release
    end if;
  end if;

  -- 5 One row a request
  v_now := flashsale_data.read_clock();
  return query
  select request.request_no, outcome.refusal,
         case outcome.refusal
           when 'SA009' then 'A release needs a hold.'
           when 'SA003' then format('There is no hold %s.', request.hold_id)
           when 'SA004' then format('Hold %s expired at %s.', request.hold_id, hold.expires_at)
           when 'SA006' then format('Hold %s has become order %s.',
                                    request.hold_id, existing_order.order_id) end,
         request.hold_id, hold.status
  from unnest(p_request_nos, p_hold_ids, v_hold_slots) with ordinality
    as request (request_no, hold_id, slot, i)
  left join flashsale_data.holds_at(v_now) hold on hold.hold_id = request.hold_id
  left join flashsale_data.orders existing_order on existing_order.hold_id = request.hold_id
  cross join lateral (
    select case
      when request.hold_id is null then 'SA009'
      when hold.hold_id is null then flashsale_data.not_found('SA003', request.hold_id)
      when v_locked_elsewhere[request.slot] then '55P03'
      when hold.status = 'active' then '55P03' -- guard: hold-released
      when hold.status = 'expired' then 'SA004'
      when hold.status = 'ordered' then 'SA006' end as refusal
    offset 0) outcome
  order by request.i;
end
$$;
comment on function flashsale.release_holds(int[], bigint[]) is
  'Returns the units of each hold to stock; one outcome row each';
revoke execute on function flashsale.release_holds(int[], bigint[]) from public;
grant execute on function flashsale.release_holds(int[], bigint[]) to flashsale_api;
