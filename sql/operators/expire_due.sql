-- Tidies up: marks lapsed holds expired and overdue orders cancelled, at most
-- p_limit of each, and ends the wait of old webhooks. Returns how many it marked.
-- pg_cron calls it through flashsale.tidy(). No answer depends on it: units whose
-- time is up are available whether or not their holds and orders are marked.
--
-- Locks    lapsed instants that are used up; products that have units to give back,
--          only for that; then the lapsed instants it works on, then their holds
--          and orders. It waits for none of them: what somebody else has locked is
--          left for the next call, so sweepers share the work. Marking changes no
--          counter, and so needs no product lock.
-- Refuses  SA009 invalid_request.
create or replace function flashsale.expire_due(p_limit int default 1000)
returns int
language plpgsql security definer
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan set jit = off
set enable_seqscan = off set enable_bitmapscan = off set enable_material = off
set enable_hashjoin = off set enable_mergejoin = off
as $$
declare
  v_products bigint[];
  v_instants timestamptz[];
  v_holds    int;
  v_orders   int;
begin
  if p_limit is null or p_limit < 1 then
    perform flashsale_data.refuse('SA009', 'A limit is at least 1.');
  end if;

  -- Searched for before any lock is taken: an old snapshot elsewhere (a backup, a
  -- psql left open) keeps all that was ever swept since in the index, and to walk
  -- past it takes its time. Instants whose units were all used up in time just go:
  -- most, when a sale goes well.
  delete from flashsale_data.lapses l
  using (
    select d.product_id, d.lapses_at
    from flashsale_data.lapses d
    where d.lapses_at <= clock_timestamp() and d.held = 0 and d.awaiting = 0
    for update skip locked) d
  where l.product_id = d.product_id and l.lapses_at = d.lapses_at;

  -- The oldest instants that make up p_limit units. A hold has at least one.
  select array_agg(due.product_id), array_agg(due.lapses_at) into v_products, v_instants
  from (
    select d.product_id, d.lapses_at,
           sum(d.held + d.awaiting) over (order by d.lapses_at, d.product_id) - d.held - d.awaiting as units_before
    from (
      select d.* from flashsale_data.lapses d
      where d.lapses_at <= clock_timestamp() and (d.held > 0 or d.awaiting > 0)
      order by d.lapses_at, d.product_id
      limit p_limit) d) due
  where due.units_before < p_limit;

  -- Whoever sells a product gives back what has lapsed; this is for the others.
  perform flashsale_data.lock_stock(array(
    select distinct l.product_id
    from unnest(v_products, v_instants) as l (product_id, lapses_at)
    where l.lapses_at > (
        select s.lapsed_through from flashsale_data.stock s
        where s.product_id = l.product_id
        order by s.version desc limit 1)), p_wait => false);

  select array_agg(l.product_id), array_agg(l.lapses_at) into v_products, v_instants
  from (
    select l.product_id, l.lapses_at
    from unnest(v_products, v_instants) as due (product_id, lapses_at)
    join flashsale_data.lapses l using (product_id, lapses_at)
    where l.lapses_at <= (
      select s.lapsed_through from flashsale_data.stock s
      where s.product_id = l.product_id
      order by s.version desc limit 1)
    for update of l skip locked) l;

  perform flashsale_data.open_ledger();
  with lapsed as materialized (
    select h.hold_id, h.product_id, h.qty, h.expires_at
    from unnest(v_products, v_instants) as d (product_id, lapses_at)
    join flashsale_data.holds h on h.expires_at = d.lapses_at and h.product_id = d.product_id
    where h.status = 'active'
    limit p_limit
    for no key update of h skip locked
  ), marked as (
    update flashsale_data.holds h
    set status = 'expired'
    from lapsed d
    where h.hold_id = d.hold_id
  ), recorded as (
    insert into flashsale_data.events (kind, at, product_id, hold_id, available_delta)
    select 'hold_expired', clock_timestamp(), d.product_id, d.hold_id, d.qty
    from lapsed d
  ), tidied as (
    update flashsale_data.lapses l
    set held = l.held - d.qty
    from (select d.product_id, d.expires_at, sum(d.qty)::int as qty from lapsed d group by 1, 2) d
    where l.product_id = d.product_id and l.lapses_at = d.expires_at
  )
  select count(*)::int into v_holds from lapsed;

  with overdue as materialized (
    select o.order_id, o.hold_id, o.product_id, o.qty, o.payment_due_at
    from unnest(v_products, v_instants) as d (product_id, lapses_at)
    join flashsale_data.orders o on o.payment_due_at = d.lapses_at and o.product_id = d.product_id
    where o.status = 'pending_payment'
    limit p_limit
    for no key update of o skip locked
  ), marked as (
    update flashsale_data.orders o
    set status = 'cancelled', cancel_reason = 'payment_overdue'
    from overdue d
    where o.order_id = d.order_id
  ), recorded as (
    insert into flashsale_data.events (kind, at, product_id, hold_id, order_id, available_delta, data)
    select 'order_cancelled', clock_timestamp(), d.product_id, d.hold_id, d.order_id, d.qty,
           '{"cancel_reason": "payment_overdue"}'
    from overdue d
  ), tidied as (
    update flashsale_data.lapses l
    set awaiting = l.awaiting - d.qty
    from (select d.product_id, d.payment_due_at, sum(d.qty)::int as qty from overdue d group by 1, 2) d
    where l.product_id = d.product_id and l.lapses_at = d.payment_due_at
  )
  select count(*)::int into v_orders from overdue;

  delete from flashsale_data.lapses l
  using unnest(v_products, v_instants) as d (product_id, lapses_at)
  where l.product_id = d.product_id and l.lapses_at = d.lapses_at and l.held = 0 and l.awaiting = 0;

  return v_holds + v_orders + flashsale_data.expire_inbox(p_limit);
end
$$;
comment on function flashsale.expire_due(int) is
  'Marks lapsed holds and overdue orders; returns how many. No answer depends on it';
revoke execute on function flashsale.expire_due(int) from public;
grant execute on function flashsale.expire_due(int) to flashsale_ops;
