-- Locks the stock rows of these products, gives back what has lapsed, and tells
-- of each product it locked, in arrays that line up: where its row is, what is
-- available, and now, read after the lock. Product is the last lock in the order;
-- it is held to commit, so that no two transactions count the same units.
--
-- The row's place stays the same as long as it is locked, until whoever has locked
-- it updates it: once, by its place. By product and version the planner may read
-- all versions that an old snapshot elsewhere keeps, as it knows of a few rows only.
--
-- It never waits for one product while it holds another: of several, those
-- that somebody else has locked are left out (busy), and the caller says so to
-- their requests. Thus one stuck product holds up nobody else's, and two batches
-- cannot deadlock. With p_wait, at least one is locked: if all are busy it waits
-- for the one with the lowest id.
create or replace function flashsale_data.lock_stock(
  p_product_ids bigint[], p_wait boolean default true,
  out products bigint[], out places tid[], out available int[], out nows timestamptz[])
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  v_through timestamptz[];
  v_now     timestamptz;
begin
  if not p_wait or cardinality(p_product_ids) > 1 then
    select array_agg(s.product_id), array_agg(s.place),
           array_agg(s.total_stock - s.held - s.awaiting - s.paid), array_agg(s.lapsed_through)
      into products, places, available, v_through
    from (select distinct unnest(p_product_ids)) as wanted (product_id)
    cross join lateral (
      select s.*, s.ctid as place from flashsale_data.stock s
      where s.product_id = wanted.product_id
      order by s.version desc limit 1
      for no key update skip locked) s; -- guard: product-locks-of-batch
  end if;
  if p_wait and products is null then
    select array[s.product_id], array[s.ctid],
           array[s.total_stock - s.held - s.awaiting - s.paid], array[s.lapsed_through]
      into products, places, available, v_through
    from flashsale_data.stock s
    where s.product_id = (select min(wanted) from unnest(p_product_ids) wanted)
    order by s.version desc limit 1
    for no key update; -- guard: product-lock
  end if;
  if products is null then
    return;
  end if;

  -- Only now: whoever waited here for a while must not sell by the old time.
  v_now := clock_timestamp(); -- guard: clock-after-lock

  -- Pairs are compared, so that the index by product and time is used, whatever
  -- the planner thinks of the one by time: nobody walks over all that ever lapsed.
  if exists (
      select from unnest(products, v_through) as s (product_id, lapsed_through)
      cross join lateral (
        select from flashsale_data.lapses l
        where (l.product_id, l.lapses_at) > (s.product_id, s.lapsed_through) -- guard: lapsed-once
          and (l.product_id, l.lapses_at) <= (s.product_id, v_now)
        limit 1) l) then
    update flashsale_data.stock s
    set version = s.version + 1,
        held = s.held - due.held,
        awaiting = s.awaiting - due.awaiting, -- guard: overdue-units-return
        lapsed_through = v_now
    from (
      select s.place, l.held, l.awaiting
      from unnest(products, places, v_through) as s (product_id, place, lapsed_through)
      cross join lateral (
        select sum(l.held)::int as held, sum(l.awaiting)::int as awaiting
        from flashsale_data.lapses l
        where (l.product_id, l.lapses_at) > (s.product_id, s.lapsed_through) -- guard: lapsed-once
          and (l.product_id, l.lapses_at) <= (s.product_id, v_now)) l
      where l.held is not null) due
    where s.ctid = due.place;

    select array_agg(s.product_id), array_agg(s.place),
           array_agg(s.total_stock - s.held - s.awaiting - s.paid), array_agg(s.lapsed_through)
      into products, places, available, v_through
    from unnest(products) as locked (product_id)
    cross join lateral (
      select s.*, s.ctid as place from flashsale_data.stock s
      where s.product_id = locked.product_id
      order by s.version desc limit 1) s;
  end if;

  -- What has once been given back stays given back, even if the clock is set back.
  for v_i in 1 .. cardinality(products) loop
    nows[v_i] := greatest(v_now, v_through[v_i]); -- guard: clock-set-back
  end loop;
end
$$;
comment on function flashsale_data.lock_stock(bigint[], boolean) is
  'Locks stock rows, gives back what has lapsed, tells what is available';
