-- Cancels orders for the shop: those that are pending, paid, or cancelled for a reason after which
-- a late payment would revive them. p_reason is their cancel_reason from now on. A payment that has
-- paid one becomes due for a refund. Their units are available again, or, where p_restocks says
-- false, leave the total stock.
--
-- Expects the orders to be locked, and their products, whose stock rows are at p_ctids with the
-- effective now of each. A claim of a buyer goes without its lock: that can only free a limit.
-- Returns how many orders it has cancelled.
create or replace function flashsale_data.cancel_locked_orders(
  p_order_ids bigint[], p_restocks boolean[], p_reason text,
  p_product_ids bigint[], p_ctids tid[], p_effective_nows timestamptz[])
returns int
language plpgsql
-- planner settings: docs/design.md
set plan_cache_mode = force_generic_plan set jit = off
set enable_seqscan = off set enable_bitmapscan = off set enable_material = off
set enable_hashjoin = off set enable_mergejoin = off
as $$
#variable_conflict use_column
declare
  v_cancelled int;
begin
  perform flashsale_data.announce_ledger_write();
  with target as materialized (
    select o.order_id, o.hold_id, o.product_id, o.qty, o.payment_due_at, o.status, locked.ctid,
           o.status = 'pending_payment' as was_pending,
           -- The units of an overdue order are available already; its event is not written yet.
           o.status = 'pending_payment' and o.payment_due_at > locked.effective_now as awaited, -- guard: cancelled-overdue
           o.status = 'paid' as was_paid,
           o.status <> 'cancelled' and (o.status = 'paid' or o.payment_due_at > locked.effective_now)
             and not wanted.restock as leaves
    from unnest(p_order_ids, p_restocks) as wanted (order_id, restock)
    join flashsale_data.orders o on o.order_id = wanted.order_id
    join unnest(p_product_ids, p_ctids, p_effective_nows) as locked (product_id, ctid, effective_now)
      on locked.product_id = o.product_id
    where locked.ctid is not null
      and (o.status <> 'cancelled' or o.cancel_reason in ('payment_failed', 'payment_overdue')) -- guard: cancelled-for-good
  ), cancelled as (
    update flashsale_data.orders o
    set status = 'cancelled', cancel_reason = p_reason
    from target t where o.order_id = t.order_id
  ), unclaimed as (
    delete from flashsale_data.claims c using target t where c.hold_id = t.hold_id
  ), owed as (
    update flashsale_data.payments p
    set refund_reason = 'order_cancelled',
        refund_state = flashsale_data.refund_state(
          'order_cancelled', flashsale_data.captured_amount(p, o), p.refunded)
    from target t
    join flashsale_data.orders o on o.order_id = t.order_id
    where t.was_paid -- guard: cancelled-is-refunded
      and p.order_id = t.order_id and p.status = 'success' and p.result = 'applied'
    returning p.idempotency_key, t.order_id, t.hold_id, t.product_id
  ), recorded as (
    insert into flashsale_data.events (kind, at, product_id, hold_id, order_id, payment_key, available_delta, data)
    select e.kind, clock_timestamp(), e.product_id, e.hold_id, e.order_id, e.payment_key, e.delta, e.data
    from (
      select 1 as place, 'order_cancelled' as kind, t.product_id, t.hold_id, t.order_id, null as payment_key,
             case when t.status = 'cancelled' then 0 else t.qty end as delta,
             jsonb_build_object('cancel_reason', p_reason) as data
      from target t
      union all
      select 2, 'stock_adjusted', t.product_id, t.hold_id, t.order_id, null, -t.qty, null
      from target t where t.leaves -- guard: not-restocked
      union all
      select 3, 'refund_due', o.product_id, o.hold_id, o.order_id, o.idempotency_key, 0,
             '{"reason": "order_cancelled"}'
      from owed o) e
    order by e.order_id, e.place
  ), lapsing as (
    -- The rows exist; on conflict finds them by their key (docs/design.md).
    insert into flashsale_data.lapses as l (product_id, lapses_at, awaiting)
    select t.product_id, t.payment_due_at, sum(t.qty) from target t where t.was_pending group by 1, 2
    on conflict (product_id, lapses_at) do update set awaiting = l.awaiting - excluded.awaiting
  ), stocked as (
    update flashsale_data.stock s
    set version = s.version + 1, awaiting = s.awaiting - c.awaited, paid = s.paid - c.paid, -- guard: cancelled-returns-units
        total_stock = s.total_stock - c.leaving
    from (
      select t.ctid, coalesce(sum(t.qty) filter (where t.awaited), 0)::int as awaited,
             coalesce(sum(t.qty) filter (where t.was_paid), 0)::int as paid,
             coalesce(sum(t.qty) filter (where t.leaves), 0)::int as leaving
      from target t group by 1) c
    where s.ctid = c.ctid
  )
  select count(*)::int into v_cancelled from target;
  return v_cancelled;
end
$$;
comment on function flashsale_data.cancel_locked_orders(bigint[], boolean[], text, bigint[], tid[], timestamptz[]) is
  'Cancels orders for the shop; what has paid them becomes due';
