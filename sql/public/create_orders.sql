-- Turns each hold into an order that awaits payment for the product's payment window, or
-- settings.payment_window. The order's stored webhooks are applied here, in order of arrival, so
-- that an order can be created as paid or cancelled. An order costs what its hold was placed at,
-- times its quantity; one that costs nothing is created as paid. What was held in time may be
-- ordered whatever the product's terms are by now. One row a request, in order.
--
-- Locks    idempotency keys, the new orders' ids, holds, claims of buyers in limit groups,
--          products, to commit.
-- Replays  a key that has created an order returns that order as it now stands.
-- Refuses  SA003 hold_not_found, SA004 hold_expired, SA005 hold_released,
--          SA006 hold_already_used (with the order that has used it),
--          SA008 idempotency_key_reused, SA009 invalid_request; SA029 wrong_shard for the whole call;
--          55P03 and 40001 as in place_holds.
create or replace function flashsale.create_orders(
  p_request_nos int[], p_hold_ids bigint[], p_idempotency_keys text[])
returns table (request_no int, sqlstate text, detail text, replayed boolean,
               order_id bigint, status text, amount numeric, currency text, payment_due_at timestamptz)
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
                     array_dims(p_hold_ids), array_dims(p_idempotency_keys));
  v_keeps_snapshot boolean := flashsale_data.keeps_snapshot();
  v_shard_slots    int;
  v_now            timestamptz;
  v_keys           text[];
  -- by request; null where no order can be expected
  v_usable         bigint[];
  v_order_ids      bigint[];
  v_last_order_ids bigint[];
  v_holds          flashsale_data.holds[];
  v_ctids          tid[];
  v_product_ids    bigint[];
  v_buyers         text[];
  v_locked_claims  boolean[];
  v_slots          int[];
  -- by product, found by the request's slot
  v_products       bigint[];
  v_product_ctids  tid[];
  v_effective_nows timestamptz[];
  v_due_ats        timestamptz[];
  -- the requests whose order is created, and these orders; whether any of them has a buyer or costs
  -- nothing
  v_created        int[];
  v_orders         flashsale_data.orders[];
  v_is_special     boolean;
  v_stored_keys    text[];
  v_settled        boolean := false;
begin
  -- 1 Lock the keys
  v_shard_slots := (select s.slots from flashsale_data.shard s);
  if v_shard_slots > 1 then
    p_idempotency_keys := flashsale_data.slot_keys(p_idempotency_keys, p_hold_ids);
  end if;
  v_keys := flashsale_data.lock_keys('order', p_idempotency_keys);
  if v_keeps_snapshot then
    perform flashsale_data.reject_stale_snapshot(
      p_hold_ids => p_hold_ids, p_order_keys => p_idempotency_keys);
  end if;

  -- 2 Find the holds worth locking
  v_now := flashsale_data.read_clock();
  v_usable := flashsale_data.usable_holds(p_hold_ids, p_idempotency_keys, v_keys, v_now);

  -- 3 Lock the new orders' ids, the holds, the claims of their buyers, their products; read the clock
  if cardinality(array_remove(v_usable, null)) > 0 then
    -- Drawn in order of the requests: a later request has a higher id. Of the slot of its hold.
    v_order_ids := array(
      select case when hold_id is not null
                  then nextval('flashsale_data.order_ids') * v_shard_slots + hold_id % v_shard_slots end -- guard: slot-of-order
      from unnest(v_usable) as hold_id);
    perform flashsale_data.lock_order_ids(v_order_ids, p_wait => true);
    select l.holds, l.ctids into v_holds, v_ctids -- guard: hold-before-product
    from flashsale_data.lock_holds(v_usable) l;
    select array_agg(case when h.status = 'active' then h.product_id end), array_agg(h.buyer)
      into v_product_ids, v_buyers
    from unnest(v_holds) as h;
  end if;
  -- Above READ COMMITTED the products of all these holds are locked, so that the lock
  -- raises 40001 if the state of a hold or its order has changed since the snapshot.
  if v_keeps_snapshot then -- guard: order-replay-in-snapshot
    v_product_ids := array(
      select h.product_id
      from unnest(p_hold_ids) with ordinality as request (hold_id, i)
      left join flashsale_data.holds h on h.hold_id = request.hold_id
      order by request.i);
  end if;
  if v_product_ids is not null then
    select x.ids, x.slots into v_products, v_slots
    from flashsale_data.index_ids(v_product_ids) x;
    select l.ctids, l.effective_nows, l.locked_claims into v_product_ctids, v_effective_nows, v_locked_claims
    from flashsale_data.lock_claimed_stock(v_products, v_slots, v_buyers) l;
  end if;

  if v_order_ids is not null then
    -- At READ COMMITTED the lock on the ids is enough: a webhook that was stored before is
    -- visible here. Above it, this row raises 40001 if the inbox has changed since the
    -- snapshot. It is the last lock of all.
    if v_keeps_snapshot then
      perform from flashsale_data.inbox for no key update; -- guard: inbox-in-snapshot
      v_effective_nows := array(
        select case when n is not null then greatest(n, clock_timestamp()) end
        from unnest(v_effective_nows) as n);
    end if;
    v_stored_keys := flashsale_data.announce_stored_webhooks(v_order_ids);
    -- Read after the last lock: the time at which the orders are created.
    v_now := clock_timestamp();

    -- 4 Decide which holds become orders
    v_due_ats := array(
      select flashsale_data.expiry_instant(locked.effective_now + coalesce(p.payment_window, s.payment_window))
      from unnest(v_products, v_effective_nows) with ordinality as locked (product_id, effective_now, slot)
      cross join flashsale_data.settings s
      left join flashsale_data.products p on p.product_id = locked.product_id
      order by locked.slot);

    -- A hold's expiry is judged by the clock that was read after the last lock, not by the
    -- time at which this call began to wait.
    select array_agg(chosen.i), array_agg(chosen.new_order), bool_or(chosen.special)
      into v_created, v_orders, v_is_special
    from (
      select hold.i::int, hold.price = 0 or hold.buyer is not null as special,
             row(v_order_ids[hold.i], hold.hold_id, hold.product_id, hold.qty,
                 hold.price * hold.qty, -- guard: order-amount
                 hold.currency, case when hold.price = 0 then 'paid' else 'pending_payment' end, -- guard: free-order-paid
                 null, v_now, v_due_ats[v_slots[hold.i]], p_idempotency_keys[hold.i], hold.buyer)::flashsale_data.orders as new_order
      from unnest(v_holds) with ordinality
        as hold (hold_id, product_id, qty, status, placed_at, expires_at, idempotency_key, currency, price,
                 buyer, extensions, i)
      where hold.status = 'active'
        and hold.expires_at > v_effective_nows[v_slots[hold.i]] -- guard: hold-not-expired
        and v_locked_claims[hold.i] is not true
      order by hold.i) chosen;
  end if;

  -- 5 Write each table once; then apply the orders' stored webhooks
  if v_created is not null then
    -- A key that is in use after all is an error (23505), never skipped. Before the holds
    -- are updated: the foreign key then finds each of them locked, and locks none again.
    insert into flashsale_data.orders select o.* from unnest(v_orders) as o;

    with used as (
      update flashsale_data.holds h
      set status = 'ordered'
      from unnest(v_created) as i
      where h.ctid = v_ctids[i]
      returning h.product_id, h.expires_at, h.qty
    )
    -- The rows exist; on conflict finds them by their key (docs/design.md).
    insert into flashsale_data.lapses as l (product_id, lapses_at, held)
    select u.product_id, u.expires_at, sum(u.qty) from used u group by 1, 2
    on conflict (product_id, lapses_at) do update set held = l.held - excluded.held;

    insert into flashsale_data.lapses as l (product_id, lapses_at, awaiting)
    select o.product_id, o.payment_due_at, sum(o.qty) from unnest(v_orders) as o
    where o.status = 'pending_payment'
    group by 1, 2
    on conflict (product_id, lapses_at) do update set awaiting = l.awaiting + excluded.awaiting;

    update flashsale_data.stock s
    set version = s.version + 1,
        awaiting = s.awaiting + o.qty - o.free, -- guard: order-takes-units
        paid = s.paid + o.free,
        held = s.held - o.qty
    from (
      select v_slots[v_created[o.n]] as slot, sum(o.qty)::int as qty,
             sum(case when o.status = 'paid' then o.qty else 0 end)::int as free
      from unnest(v_orders) with ordinality
        as o (order_id, hold_id, product_id, qty, amount, currency, status, cancel_reason, created_at,
              payment_due_at, idempotency_key, buyer, n)
      group by 1) o
    where s.ctid = v_product_ctids[o.slot];

    perform flashsale_data.announce_ledger_write();
    insert into flashsale_data.events (kind, at, product_id, hold_id, order_id)
    select 'order_created', clock_timestamp(), o.product_id, o.hold_id, o.order_id
    from unnest(v_orders) as o;
    if v_is_special then
      insert into flashsale_data.events (kind, at, product_id, hold_id, order_id)
      select 'order_paid', clock_timestamp(), o.product_id, o.hold_id, o.order_id
      from unnest(v_orders) as o
      where o.status = 'paid';
      update flashsale_data.claims c
      set ends_at = case when o.status = 'paid' then 'infinity' else o.payment_due_at end -- guard: claim-follows-order
      from unnest(v_orders) as o
      where c.hold_id = o.hold_id and o.buyer is not null;
    end if;

    if cardinality(v_stored_keys) > 0 then
      -- guard: stored-webhooks-applied
      v_settled := flashsale_data.settle_stored(array(select o.order_id from unnest(v_orders) as o), v_now);
    end if;
  end if;

  -- 6 One row a request
  if not v_settled and cardinality(v_created) = v_size then
    return query
    select request.request_no, null::text, null::text, false,
           o.order_id, o.status, o.amount, o.currency, o.payment_due_at
    from unnest(p_request_nos) with ordinality as request (request_no, i)
    cross join lateral (select (v_orders[request.i]).*) o
    order by request.i;
    return;
  end if;

  -- A key's order must not be one that a later request of this call has created. That one's id
  -- is higher, since ids were drawn in order of the requests, than the last id that was drawn
  -- for this request or an earlier one; where none was, than the id before the first.
  if v_order_ids is not null then
    v_last_order_ids := array(
      select coalesce(max(id) over (order by i), min(id) over () - 1)
      from unnest(v_order_ids) with ordinality as drawn (id, i)
      order by i);
  end if;
  v_now := clock_timestamp();
  return query
  select request.request_no, outcome.refusal,
         case outcome.refusal
           when 'SA003' then format('There is no hold %s.', request.hold_id)
           when 'SA004' then format('Hold %s expired at %s.', request.hold_id, hold.expires_at)
           when 'SA005' then format('Hold %s was released.', request.hold_id)
           when 'SA006' then format('Hold %s has become order %s, which is %s.', request.hold_id,
                                    existing_order.order_id, existing_order.status)
           when 'SA008' then 'This idempotency key came with another hold.'
           when 'SA009' then 'An order needs a hold, and its idempotency key has 1 to 255 characters.' end,
         outcome.refusal is null and not made.created,
         case when outcome.refusal is null or outcome.refusal = 'SA006' then existing_order.order_id end,
         case when outcome.refusal is null or outcome.refusal = 'SA006' then existing_order.status end,
         case when outcome.refusal is null then existing_order.amount end,
         case when outcome.refusal is null then existing_order.currency end,
         case when outcome.refusal is null then existing_order.payment_due_at end
  from unnest(p_request_nos, p_hold_ids, p_idempotency_keys) with ordinality
    as request (request_no, hold_id, key, i)
  left join flashsale_data.holds_at(v_now) hold on hold.hold_id = request.hold_id
  left join flashsale_data.orders_at(v_now) existing_order on existing_order.hold_id = request.hold_id
  left join flashsale_data.orders key_order
    on key_order.idempotency_key = request.key
    and key_order.order_id <= coalesce(v_last_order_ids[request.i], key_order.order_id)
  cross join lateral (
    select existing_order.order_id is not null
           and existing_order.order_id is not distinct from v_order_ids[request.i] as created) made
  -- offset 0: decided once a row, not at each use.
  cross join lateral (
    select case
      when request.hold_id is null or length(request.key) not between 1 and 255 then 'SA009'
      when request.key is not null and not request.key in (select unnest(v_keys)) then '55P03'
      when key_order.hold_id <> request.hold_id then 'SA008' -- guard: order-key-reused
      when v_keeps_snapshot and hold.hold_id is not null and v_product_ctids[v_slots[request.i]] is null
        then '55P03'
      when key_order.hold_id = request.hold_id or made.created then null
      when hold.hold_id is null then flashsale_data.not_found('SA003', request.hold_id)
      when hold.status = 'expired' then 'SA004'
      when hold.status = 'released' then 'SA005'
      when hold.status = 'ordered' then 'SA006'
      else '55P03' end as refusal
    offset 0) outcome
  order by request.i;
end
$$;
comment on function flashsale.create_orders(int[], bigint[], text[]) is
  'Turns each hold into an order; one outcome row each';
revoke execute on function flashsale.create_orders(int[], bigint[], text[]) from public;
grant execute on function flashsale.create_orders(int[], bigint[], text[]) to flashsale_api;
