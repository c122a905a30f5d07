-- Locks the stock rows of these products, gives back what has lapsed, and tells
-- of each product it locked, in arrays that line up: the version to update, what
-- is available, and now, read after the lock. Product is the last lock in the
-- order; it is held to commit, so that no two transactions count the same units.
--
-- It never waits for one product while it holds another: of several, those
-- that somebody else has locked are left out (busy), and the caller says so to
-- their requests. Thus one stuck product holds up nobody else's, and two batches
-- cannot deadlock. With p_wait, at least one is locked: if all are busy it waits
-- for the one with the lowest id.
create or replace function flashsale_data.lock_stock(
  p_product_ids bigint[], p_wait boolean default true,
  out products bigint[], out versions bigint[], out available int[], out nows timestamptz[])
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  v_through timestamptz[];
  v_now     timestamptz;
begin
  if not p_wait or cardinality(p_product_ids) > 1 then
    select array_agg(s.product_id), array_agg(s.version),
           array_agg(s.total_stock - s.held - s.awaiting - s.paid), array_agg(s.lapsed_through)
      into products, versions, available, v_through
    from (select distinct unnest(p_product_ids)) as wanted (product_id)
    cross join lateral (
      select s.* from flashsale_data.stock s
      where s.product_id = wanted.product_id
      order by s.version desc limit 1
      for no key update skip locked) s;
  end if;
  if p_wait and products is null then
    select array[s.product_id], array[s.version],
           array[s.total_stock - s.held - s.awaiting - s.paid], array[s.lapsed_through]
      into products, versions, available, v_through
    from flashsale_data.stock s
    where s.product_id = (select min(wanted) from unnest(p_product_ids) wanted)
    order by s.version desc limit 1
    for no key update;
  end if;
  if products is null then
    return;
  end if;

  -- Only now: whoever waited here for a while must not sell by the old time.
  v_now := clock_timestamp();

  if exists (
      select from unnest(products, v_through) as s (product_id, lapsed_through)
      join flashsale_data.lapses l
        on l.product_id = s.product_id and l.lapses_at > s.lapsed_through and l.lapses_at <= v_now) then
    update flashsale_data.stock s
    set version = s.version + 1,
        held = s.held - due.held,
        awaiting = s.awaiting - due.awaiting,
        lapsed_through = v_now
    from (
      select s.product_id, s.version, sum(l.held)::int as held, sum(l.awaiting)::int as awaiting
      from unnest(products, versions, v_through) as s (product_id, version, lapsed_through)
      join flashsale_data.lapses l
        on l.product_id = s.product_id and l.lapses_at > s.lapsed_through and l.lapses_at <= v_now
      group by s.product_id, s.version) due
    where s.product_id = due.product_id and s.version = due.version;

    select array_agg(s.product_id), array_agg(s.version),
           array_agg(s.total_stock - s.held - s.awaiting - s.paid), array_agg(s.lapsed_through)
      into products, versions, available, v_through
    from unnest(products) as locked (product_id)
    cross join lateral (
      select s.* from flashsale_data.stock s
      where s.product_id = locked.product_id
      order by s.version desc limit 1) s;
  end if;

  -- What has once been given back stays given back, even if the clock is set back.
  for v_i in 1 .. cardinality(products) loop
    nows[v_i] := greatest(v_now, v_through[v_i]);
  end loop;
end
$$;
comment on function flashsale_data.lock_stock(bigint[], boolean) is
  'Locks stock rows, gives back what has lapsed, tells what is available';
