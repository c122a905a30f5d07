-- Records lapsed holds as expired and overdue orders as cancelled, at most p_limit of each,
-- and ends the wait of old webhooks. Returns how many it recorded. pg_cron calls it through
-- flashsale.sweep(). No answer depends on it: lapsed units are available from their instant,
-- whether or not their holds and orders have been swept.
--
-- Locks    lapsed instants without units; products that have lapsed units to return, for that
--          alone; then the lapsed instants it works on, then their holds and orders. It waits
--          for none of them: what another transaction has locked is left for the next call, so
--          that several sweeps share the work, and does not count towards p_limit, so that a
--          stuck product starves no other. Recording changes no counter, and so needs no lock
--          of the product.
-- Refuses  SA009 invalid_request.
create or replace function flashsale.expire_due(p_limit int default 1000)
returns int
language plpgsql security definer
set search_path = pg_catalog, pg_temp
-- planner settings: docs/design.md
set plan_cache_mode = force_generic_plan set jit = off
set enable_seqscan = off set enable_bitmapscan = off set enable_material = off
set enable_hashjoin = off set enable_mergejoin = off
as $$
declare
  v_products         bigint[];
  v_instants         timestamptz[];
  -- where the last page ended
  v_after_at         timestamptz := timestamptz '-infinity';
  v_after_product    bigint := 0::bigint;
  v_locked_elsewhere bigint[] := array[]::bigint[];
  v_needed           bigint[];
  v_ctids            tid[];
  v_holds            int := 0;
  v_orders           int := 0;
  v_page             int;
  v_now              timestamptz := clock_timestamp();
begin
  if p_limit is null or p_limit < 1 then
    perform flashsale_data.raise_refusal('SA009', 'A limit is at least 1.');
  end if;

  -- Instants whose units were all used in time are deleted: most of them, if a sale goes
  -- well. They are searched for before any lock is taken, which may take a while: an old
  -- snapshot elsewhere (a backup, a psql left open) keeps all that was swept since in the index.
  delete from flashsale_data.lapses l
  using (
    select d.product_id, d.lapses_at
    from flashsale_data.lapses d
    where d.lapses_at <= v_now and d.held = 0 and d.awaiting = 0
    for update skip locked) d
  where l.product_id = d.product_id and l.lapses_at = d.lapses_at;

  -- Page by page through the lapsed instants, oldest first, until p_limit holds or as many
  -- orders are recorded, or no instant is left. One page is enough unless something in it is
  -- locked.
  loop
    -- The oldest instants that together have p_limit units. A hold has at least one.
    select array_agg(due.product_id order by due.lapses_at, due.product_id),
           array_agg(due.lapses_at order by due.lapses_at, due.product_id)
      into v_products, v_instants
    from (
      select d.product_id, d.lapses_at,
             sum(d.held + d.awaiting) over (order by d.lapses_at, d.product_id) - d.held - d.awaiting as units_before
      from (
        select d.* from flashsale_data.lapses d
        where d.lapses_at <= v_now and d.lapses_at >= v_after_at
          and (d.lapses_at, d.product_id) > (v_after_at, v_after_product)
          and (d.held > 0 or d.awaiting > 0) and not d.product_id = any (v_locked_elsewhere)
        order by d.lapses_at, d.product_id
        limit p_limit) d) due
    where due.units_before < p_limit;
    exit when v_products is null;
    v_after_at := v_instants[cardinality(v_instants)];
    v_after_product := v_products[cardinality(v_products)];

    -- A transaction that sells a product returns its lapsed units; this returns those of
    -- the other products.
    v_needed := array(
      select distinct l.product_id
      from unnest(v_products, v_instants) as l (product_id, lapses_at)
      where l.lapses_at > (
        select s.lapsed_through from flashsale_data.stock s
        where s.product_id = l.product_id
        order by s.version desc limit 1)
      order by 1);
    if cardinality(v_needed) > 0 then
      select l.ctids into v_ctids from flashsale_data.lock_stock(v_needed, p_wait => false) l;
      v_locked_elsewhere := v_locked_elsewhere || array(
        select product_id from unnest(v_needed, v_ctids) as l (product_id, ctid) where l.ctid is null);
    end if;

    select array_agg(l.product_id), array_agg(l.lapses_at) into v_products, v_instants
    from (
      select l.product_id, l.lapses_at
      from unnest(v_products, v_instants) as due (product_id, lapses_at)
      join flashsale_data.lapses l using (product_id, lapses_at)
      where l.lapses_at <= (
        select s.lapsed_through from flashsale_data.stock s
        where s.product_id = l.product_id
        order by s.version desc limit 1)
      for update of l skip locked) l; -- guard: sweep-skips-locked
    continue when v_products is null; -- guard: locked-not-counted

    v_page := flashsale_data.expire_holds(v_products, v_instants, p_limit - v_holds);
    v_holds := v_holds + v_page;
    v_page := flashsale_data.expire_orders(v_products, v_instants, p_limit - v_orders);
    v_orders := v_orders + v_page;

    delete from flashsale_data.lapses l
    using unnest(v_products, v_instants) as d (product_id, lapses_at)
    where l.product_id = d.product_id and l.lapses_at = d.lapses_at and l.held = 0 and l.awaiting = 0;
    exit when v_holds >= p_limit or v_orders >= p_limit; -- guard: locked-not-counted
  end loop;

  return v_holds + v_orders + flashsale_data.expire_inbox(p_limit);
end
$$;
comment on function flashsale.expire_due(int) is
  'Sweeps lapsed holds and overdue orders; returns how many. No answer depends on it';
revoke execute on function flashsale.expire_due(int) from public;
grant execute on function flashsale.expire_due(int) to flashsale_ops;
