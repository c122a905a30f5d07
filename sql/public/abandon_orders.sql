-- Gives back each pending order: it is cancelled (buyer_cancelled), its units are available at once,
-- and a payment that comes later is a refund due. Of an order that is cancelled already, for
-- whatever reason, or overdue, nothing changes. The request must name the order's hold, too, as in
-- get_orders(). One row a request, in order.
--
-- Locks    orders, claims of buyers in limit groups, then products, to commit.
-- Refuses  SA007 order_not_found, SA009 invalid_request, SA019 order_settled (with the order's
--          status: it is paid); SA029 wrong_shard for the whole call; 55P03 and 40001 as in place_holds.
create or replace function flashsale.abandon_orders(p_request_nos int[], p_order_ids bigint[], p_hold_ids bigint[])
returns table (request_no int, sqlstate text, detail text, order_id bigint, status text)
language plpgsql security definer
set search_path = pg_catalog, pg_temp
-- planner settings: docs/design.md
set plan_cache_mode = force_generic_plan set jit = off
set enable_seqscan = off set enable_bitmapscan = off set enable_material = off
set enable_hashjoin = off set enable_mergejoin = off
as $$
#variable_conflict use_column
declare
  v_now            timestamptz;
  -- by order: its id, its row and where it is, its product
  v_order_ids      bigint[];
  v_orders         flashsale_data.orders[];
  v_ctids          tid[];
  v_slots          int[];
  v_buyers         text[];
  v_has_buyers     boolean;
  v_locked_claims  boolean[];
  v_abandoned      int[];
  -- by product, found by the order's slot
  v_products       bigint[];
  v_product_ctids  tid[];
  v_effective_nows timestamptz[];
begin
  perform flashsale_data.batch_size(cardinality(p_request_nos), array_dims(p_request_nos),
    array_dims(p_order_ids), array_dims(p_hold_ids));
  perform flashsale_data.reject_stale_snapshot(p_order_ids => p_order_ids);

  -- 1 Find the orders worth locking: only what is pending changes here
  v_order_ids := array(
    select distinct o.order_id
    from unnest(p_order_ids, p_hold_ids) as request (order_id, hold_id)
    join flashsale_data.orders o on o.order_id = request.order_id
    where o.hold_id = request.hold_id -- guard: abandon-capability
      and o.status = 'pending_payment'
    order by o.order_id);

  if cardinality(v_order_ids) > 0 then
    -- 2 Lock the orders, the claims of their buyers, their products; the clock is read last
    select l.orders, l.ctids into v_orders, v_ctids
    from flashsale_data.lock_orders(v_order_ids) l;
    select x.ids, x.slots into v_products, v_slots
    from flashsale_data.index_ids(array(
      select case when o.status = 'pending_payment' then o.product_id end from unnest(v_orders) as o)) x;
    v_buyers := array(select o.buyer from unnest(v_orders) as o);
    v_has_buyers := cardinality(array_remove(v_buyers, null)) > 0;
    select l.ctids, l.effective_nows, l.locked_claims into v_product_ctids, v_effective_nows, v_locked_claims
    from flashsale_data.lock_claimed_stock(v_products, v_slots, v_buyers) l;

    -- 3 Decide
    v_abandoned := array(
      select slot
      from generate_subscripts(v_orders, 1) as slot
      where (v_orders[slot]).status = 'pending_payment'
        and (v_orders[slot]).payment_due_at > v_effective_nows[v_slots[slot]] -- guard: abandon-in-time
        and v_locked_claims[slot] is not true);
  end if;

  -- 4 Write each table once
  if cardinality(v_abandoned) > 0 then
    perform flashsale_data.announce_ledger_write();
    with abandoned as (
      update flashsale_data.orders o
      set status = 'cancelled', cancel_reason = 'buyer_cancelled'
      from unnest(v_abandoned) as slot
      where o.ctid = v_ctids[slot]
      returning o.order_id, o.hold_id, o.product_id, o.qty, o.payment_due_at
    ), recorded as (
      insert into flashsale_data.events (kind, at, product_id, hold_id, order_id, available_delta, data)
      select 'order_cancelled', clock_timestamp(), a.product_id, a.hold_id, a.order_id, a.qty,
             '{"cancel_reason": "buyer_cancelled"}'
      from abandoned a
    ), lapsing as (
      -- The rows exist; on conflict finds them by their key (docs/design.md).
      insert into flashsale_data.lapses as l (product_id, lapses_at, awaiting)
      select a.product_id, a.payment_due_at, sum(a.qty) from abandoned a group by 1, 2
      on conflict (product_id, lapses_at) do update set awaiting = l.awaiting - excluded.awaiting
    )
    update flashsale_data.stock s
    set awaiting = s.awaiting - a.qty, -- guard: abandon-returns-units
        version = s.version + 1
    from (
      select v_slots[slot] as product_slot, sum((v_orders[slot]).qty)::int as qty
      from unnest(v_abandoned) as slot group by 1) a
    where s.ctid = v_product_ctids[a.product_slot];
    if v_has_buyers then
      delete from flashsale_data.claims c
      using unnest(v_abandoned) as slot
      where c.hold_id = (v_orders[slot]).hold_id; -- guard: claim-follows-abandon
    end if;
  end if;

  -- 5 One row a request
  v_now := flashsale_data.read_clock();
  return query
  select p_request_nos[request.i], outcome.refusal,
         case outcome.refusal
           when 'SA007' then format('There is no order %s with this hold_id.', request.order_id)
           when 'SA009' then 'Giving back needs an order and its hold.'
           when 'SA019' then format('Order %s is paid.', request.order_id) end,
         existing_order.order_id, existing_order.status
  from unnest(p_order_ids, p_hold_ids) with ordinality as request (order_id, hold_id, i)
  left join flashsale_data.orders_at(v_now) existing_order
    on existing_order.order_id = request.order_id and existing_order.hold_id = request.hold_id
  cross join lateral (
    select case
      when request.order_id is null or request.hold_id is null then 'SA009'
      when existing_order.order_id is null then flashsale_data.not_found('SA007', request.order_id)
      when existing_order.status = 'paid' then 'SA019' -- guard: paid-not-abandoned
      when existing_order.status = 'pending_payment' then '55P03' end as refusal
    offset 0) outcome
  order by request.i;
end
$$;
comment on function flashsale.abandon_orders(int[], bigint[], bigint[]) is
  'Gives back each pending order; one outcome row each';
revoke execute on function flashsale.abandon_orders(int[], bigint[], bigint[]) from public;
grant execute on function flashsale.abandon_orders(int[], bigint[], bigint[]) to flashsale_api;
