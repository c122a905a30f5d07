-- Locks the stock rows of these products, gives back what has lapsed, and
-- returns a row for each product it locked: what is available, and now, read
-- after the lock. Product is the last lock in the order; it is held to commit,
-- so that no two transactions count the same units.
--
-- It never waits for one product while it holds another: of several, those
-- that somebody else has locked are left out (busy), and the caller says so to
-- their requests. Thus one stuck product holds up nobody else's, and two batches
-- cannot deadlock. With p_wait, at least one is locked: if all are busy it waits
-- for the one with the lowest id.
create or replace function flashsale_data.lock_stock(p_product_ids bigint[], p_wait boolean default true)
returns table (product_id bigint, version bigint, available int, now timestamptz)
language plpgsql rows 1
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
  v_locked bigint[];
  v_now    timestamptz;
begin
  if not p_wait or cardinality(p_product_ids) > 1 then
    select array_agg(s.product_id) into v_locked
    from (select distinct unnest(p_product_ids)) as wanted (product_id)
    cross join lateral (
      select s.product_id from flashsale_data.stock s
      where s.product_id = wanted.product_id
      order by s.version desc limit 1
      for no key update skip locked) s;
  end if;
  if p_wait and v_locked is null then
    select array[s.product_id] into v_locked
    from flashsale_data.stock s
    where s.product_id = (select min(wanted) from unnest(p_product_ids) wanted)
    order by s.version desc limit 1
    for no key update;
  end if;
  if v_locked is null then
    return;
  end if;

  -- Only now: whoever waited here for a while must not sell by the old time.
  v_now := clock_timestamp();

  update flashsale_data.stock s
  set version = s.version + 1,
      held = s.held - due.held,
      awaiting = s.awaiting - due.awaiting,
      lapsed_through = v_now
  from (
    select s.product_id, s.version, sum(l.held)::int as held, sum(l.awaiting)::int as awaiting
    from unnest(v_locked) as locked (product_id)
    cross join lateral (
      select s.* from flashsale_data.stock s
      where s.product_id = locked.product_id
      order by s.version desc limit 1) s
    join flashsale_data.lapses l
      on l.product_id = s.product_id and l.lapses_at > s.lapsed_through and l.lapses_at <= v_now
    group by s.product_id, s.version) due
  where s.product_id = due.product_id and s.version = due.version;

  return query
  select s.product_id, s.version, s.total_stock - s.held - s.awaiting - s.paid,
         greatest(v_now, s.lapsed_through)
  from unnest(v_locked) as locked (product_id)
  cross join lateral (
    select s.* from flashsale_data.stock s
    where s.product_id = locked.product_id
    order by s.version desc limit 1) s;
end
$$;
comment on function flashsale_data.lock_stock(bigint[], boolean) is
  'Locks stock rows, gives back what has lapsed, returns what is available';
