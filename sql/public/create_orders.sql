-- Turns each hold into an order that awaits payment for settings.payment_window.
-- Webhooks that came before their order are applied here, in order of arrival,
-- so an order can be born paid or cancelled. One row a request, in order.
--
-- Locks    idempotency keys, the new orders' ids, holds, products, to commit.
-- Replays  a key that has created an order answers with that order as it now stands.
-- Refuses  SA003 hold_not_found, SA004 hold_expired, SA005 hold_released,
--          SA006 hold_already_used (with the order that has used it),
--          SA008 idempotency_key_reused, SA009 invalid_request;
--          55P03 and 40001 as in place_holds.
create or replace function flashsale.create_orders(
  p_request_nos int[], p_hold_ids bigint[], p_idempotency_keys text[])
returns table (request_no int, sqlstate text, detail text, replayed boolean,
               order_id bigint, status text, amount numeric, currency text, payment_due_at timestamptz)
language plpgsql security definer
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan set jit = off
set enable_seqscan = off set enable_bitmapscan = off set enable_material = off
set enable_hashjoin = off set enable_mergejoin = off
as $$
#variable_conflict use_column
declare
  v_keys      text[];
  -- the orders to be: one for each hold that looks usable, for its first request
  v_requests  bigint[];
  v_hold_ids  bigint[];
  v_new_keys  text[];
  v_order_ids bigint[];
  v_locked    bigint[];
  v_products  bigint[];
  v_places    tid[];
  v_nows      timestamptz[];
  v_early     text[];
  v_settled   boolean := false;
  -- by order that was created
  v_created     bigint[];
  v_product_ids bigint[];
  v_qtys        int[];
  v_amounts     numeric[];
  v_currencies  text[];
  v_due_ats     timestamptz[];
  -- of the call
  v_keeps_snapshot boolean := flashsale_data.keeps_snapshot();
  v_now         timestamptz;
begin
  perform flashsale_data.batch_size(cardinality(p_request_nos), array_dims(p_request_nos),
    array_dims(p_hold_ids), array_dims(p_idempotency_keys));
  v_keys := flashsale_data.lock_keys('order', p_idempotency_keys);
  if v_keeps_snapshot then
    perform flashsale_data.reject_unseen(p_hold_ids => p_hold_ids, p_order_keys => p_idempotency_keys);
  end if;

  v_now := flashsale_data.read_clock();
  -- Ordered, released, expired and unknown are final: no lock to say so.
  select array_agg(r.i), array_agg(r.hold_id), array_agg(r.key),
         array_agg(nextval('flashsale_data.order_ids'))
    into v_requests, v_hold_ids, v_new_keys, v_order_ids
  from (
    select r.i, r.hold_id, r.key
    from (
      select distinct on (r.hold_id) r.i, r.hold_id, r.key
      from (
        select u.i, u.hold_id, u.key, min(u.i) over (partition by u.key) as first_i
        from unnest(p_hold_ids, p_idempotency_keys) with ordinality as u (hold_id, key, i)
        join flashsale_data.holds_at(v_now) h on h.hold_id = u.hold_id and h.status = 'active'
        where u.key is null or u.key = any (v_keys) and length(u.key) between 1 and 255) r
      where (r.key is null or r.first_i = r.i)
        and not exists (
          select from flashsale_data.orders o where r.key is not null and o.idempotency_key = r.key)
      order by r.hold_id, r.i) r
    order by r.i) r;

  if v_order_ids is not null then
    perform flashsale_data.lock_order_ids(v_order_ids, p_wait => true);
    v_locked := flashsale_data.lock_holds(v_hold_ids); -- guard: hold-before-product
  end if;
  -- Above READ COMMITTED the products of all these holds are locked, so that the lock
  -- raises 40001 if the state of a hold or its order has changed since the snapshot.
  if v_order_ids is not null or v_keeps_snapshot then
    select l.products, l.places, l.nows into v_products, v_places, v_nows
    from flashsale_data.lock_stock(array(
      select h.product_id from flashsale_data.holds h
      where h.hold_id = any (v_locked) and h.status = 'active'
      union
      select h.product_id from flashsale_data.holds h
      where h.hold_id = any (p_hold_ids) and v_keeps_snapshot)) l; -- guard: order-replay-in-snapshot
  end if;

  if v_order_ids is not null then
    -- At READ COMMITTED the lock on the ids is enough: what an early webhook has
    -- committed is visible here. Above it, this row tells (40001) whether the
    -- inbox has moved. It is the last lock of all.
    if v_keeps_snapshot then
      perform from flashsale_data.inbox for no key update; -- guard: inbox-in-snapshot
      v_nows := array(select greatest(n, clock_timestamp()) from unnest(v_nows) n);
    end if;

    v_early := flashsale_data.announce_early_payments(v_order_ids);

    -- Read after the last lock: the time at which the orders are created.
    v_now := clock_timestamp();
    perform flashsale_data.open_ledger();
    with chosen as materialized (
      -- expires_at is judged by the clock read after the last lock, not by the
      -- time at which this call began to wait.
      select n.order_id, n.key, h.hold_id, h.product_id, h.qty, h.expires_at,
             p.price * h.qty as amount, -- guard: order-amount
             p.currency,
             flashsale_data.next_tenth(s.now + c.payment_window) as payment_due_at
      from unnest(v_order_ids, v_hold_ids, v_new_keys) as n (order_id, hold_id, key)
      -- offset 0: by its id, and not among all that have not expired.
      cross join lateral (
        select h.* from flashsale_data.holds h where h.hold_id = n.hold_id offset 0) h
      join unnest(v_products, v_nows) as s (product_id, now) on s.product_id = h.product_id
      join flashsale_data.products p on p.product_id = h.product_id
      cross join flashsale_data.settings c
      where h.hold_id = any (v_locked) and h.status = 'active'
        and h.expires_at > s.now -- guard: hold-not-expired
    ), created as (
      insert into flashsale_data.orders
        (order_id, hold_id, product_id, qty, amount, currency, created_at, payment_due_at, idempotency_key)
      select c.order_id, c.hold_id, c.product_id, c.qty, c.amount, c.currency,
             v_now, c.payment_due_at, c.key
      from chosen c
      -- A key that is in use after all is an error (23505), never skipped.
    ), used as (
      update flashsale_data.holds h
      set status = 'ordered'
      from chosen c
      where h.hold_id = c.hold_id
    ), recorded as (
      insert into flashsale_data.events (kind, at, product_id, hold_id, order_id)
      select 'order_created', clock_timestamp(), c.product_id, c.hold_id, c.order_id
      from chosen c
      order by c.order_id
    ), no_longer_held as (
      update flashsale_data.lapses l
      set held = l.held - c.qty
      from (select c.product_id, c.expires_at, sum(c.qty)::int as qty from chosen c group by 1, 2) c
      where l.product_id = c.product_id and l.lapses_at = c.expires_at
    ), counted as (
      update flashsale_data.stock s
      set version = s.version + 1,
          awaiting = s.awaiting + c.qty, -- guard: order-takes-units
          held = s.held - c.qty
      from (select c.product_id, sum(c.qty)::int as qty from chosen c group by 1) c
      join unnest(v_products, v_places) as locked (product_id, place) using (product_id)
      where s.ctid = locked.place
    )
    select array_agg(c.order_id), array_agg(c.amount), array_agg(c.currency), array_agg(c.payment_due_at),
           array_agg(c.product_id), array_agg(c.qty)
      into v_created, v_amounts, v_currencies, v_due_ats, v_product_ids, v_qtys
    from chosen c;

    -- A statement of its own: an order may lapse at the instant at which its
    -- hold would have, and one statement changes a row once.
    insert into flashsale_data.lapses as l (product_id, lapses_at, awaiting)
    select o.product_id, o.payment_due_at, sum(o.qty)
    from unnest(v_product_ids, v_due_ats, v_qtys) as o (product_id, payment_due_at, qty)
    group by 1, 2
    on conflict (product_id, lapses_at) do update set awaiting = l.awaiting + excluded.awaiting;

    if cardinality(v_early) > 0 then
      v_settled := flashsale_data.settle_stored(v_early, v_created, v_now); -- guard: early-webhooks-applied
    end if;
  end if;

  -- Most calls: everybody has an order now, and nobody has paid yet.
  if not v_settled and cardinality(v_created) = cardinality(p_request_nos) then
    return query
    select r.request_no, null::text, null::text, false,
           o.order_id, 'pending_payment', o.amount, o.currency, o.payment_due_at
    from unnest(p_request_nos) with ordinality as r (request_no, i)
    join unnest(v_requests, v_order_ids) as n (i, order_id) using (i)
    join unnest(v_created, v_amounts, v_currencies, v_due_ats)
      as o (order_id, amount, currency, payment_due_at) using (order_id)
    order by r.i;
    return;
  end if;

  v_now := clock_timestamp();
  return query
  select r.request_no, o.refusal,
         case o.refusal
           when 'SA003' then format('There is no hold %s.', r.hold_id)
           when 'SA004' then format('Hold %s expired at %s.', r.hold_id, h.expires_at)
           when 'SA005' then format('Hold %s was released.', r.hold_id)
           when 'SA006' then format('Hold %s has become order %s, which is %s.', r.hold_id, a.order_id, a.status)
           when 'SA008' then 'This idempotency key came with another hold.'
           when 'SA009' then 'An order needs a hold, and its idempotency key has 1 to 255 characters.' end,
         o.refusal is null and not o.created,
         case when o.refusal is null or o.refusal = 'SA006' then a.order_id end,
         case when o.refusal is null or o.refusal = 'SA006' then a.status end,
         case when o.refusal is null then a.amount end,
         case when o.refusal is null then a.currency end,
         case when o.refusal is null then a.payment_due_at end
  from unnest(p_request_nos, p_hold_ids, p_idempotency_keys) with ordinality
    as r (request_no, hold_id, key, i)
  left join flashsale_data.holds_at(v_now) h on h.hold_id = r.hold_id
  left join flashsale_data.orders_at(v_now) a on a.hold_id = r.hold_id
  -- Not an order that a later request of this call has created.
  left join flashsale_data.orders k on k.idempotency_key = r.key
    and coalesce(v_requests[array_position(v_order_ids, k.order_id)] <= r.i, true)
  cross join lateral (
    select coalesce(a.order_id = any (v_created) and r.i = any (v_requests), false) as created) c
  cross join lateral (
    select c.created,
           case
             when r.hold_id is null or length(r.key) not between 1 and 255 then 'SA009'
             when r.key is not null and not r.key = any (v_keys) then '55P03'
             when k.hold_id <> r.hold_id then 'SA008' -- guard: order-key-reused
             when v_keeps_snapshot and not coalesce(h.product_id = any (v_products), h.hold_id is null)
               then '55P03'
             when k.hold_id = r.hold_id or c.created then null
             when h.hold_id is null then 'SA003'
             when h.status = 'expired' then 'SA004'
             when h.status = 'released' then 'SA005'
             when h.status = 'ordered' then 'SA006'
             else '55P03' end as refusal) o
  order by r.i;
end
$$;
comment on function flashsale.create_orders(int[], bigint[], text[]) is
  'Turns each hold into an order; one outcome row each';
revoke execute on function flashsale.create_orders(int[], bigint[], text[]) from public;
grant execute on function flashsale.create_orders(int[], bigint[], text[]) to flashsale_api;
