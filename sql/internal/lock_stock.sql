-- Locks the stock rows of these products (distinct ids, ascending; null for none), returns
-- lapsed units to them, and describes each product in arrays that line up with
-- p_product_ids: the ctid of its row, its available units, and its effective now, the time
-- by which its holds and orders are judged. A product that is locked elsewhere, or unknown, is
-- null in all of them; one that has moved to another shard while it was waited for raises SA029. Product is the last lock in the order; it is held to commit, so that no
-- two transactions count the same units.
--
-- While the row is locked its ctid is stable; the caller updates it once, by ctid. A
-- look-up by product and version may read every version that an old snapshot keeps, since
-- the planner expects a few rows.
--
-- Never waits for one product while it holds another: of several, those that are locked by
-- other transactions are left out, and the caller answers 55P03 to their requests.
-- Thus a stuck product delays no other, and two batches cannot deadlock. With p_wait, at
-- least one is locked: if others have locked all, this waits for the one with the lowest id.
create or replace function flashsale_data.lock_stock(
  p_product_ids bigint[], p_wait boolean default true,
  out ctids tid[], out available int[], out effective_nows timestamptz[])
language plpgsql
as $$
declare
  v_through timestamptz[];
  v_lowest  record;
  v_slot    int;
  v_now     timestamptz;
begin
  if not p_wait or cardinality(p_product_ids) > 1 then
    select array_agg(locked.ctid), array_agg(locked.available), array_agg(locked.lapsed_through)
      into ctids, available, v_through
    from (
      select stock.ctid, stock.available, stock.lapsed_through
      from unnest(p_product_ids) with ordinality as wanted (product_id, slot)
      left join lateral (
        select s.ctid, s.total_stock - s.held - s.awaiting - s.paid as available, s.lapsed_through
        from flashsale_data.stock s
        where s.product_id = wanted.product_id
        order by s.version desc limit 1
        for no key update skip locked -- guard: product-locks-of-batch
      ) stock on true
      order by wanted.slot) locked;
  end if;
  if p_wait and coalesce(cardinality(array_remove(available, null)), 0) = 0 then
    select s.product_id, s.ctid, s.total_stock - s.held - s.awaiting - s.paid as available, s.lapsed_through
      into v_lowest
    from flashsale_data.stock s
    where s.product_id = (select min(wanted) from unnest(p_product_ids) as wanted)
    order by s.version desc limit 1
    for no key update; -- guard: product-lock
    if not found then
      perform flashsale_data.check_owned(p_product_ids); -- guard: moved-while-waiting
      return;
    end if;
    v_slot := array_position(p_product_ids, v_lowest.product_id);
    ctids[v_slot] := v_lowest.ctid;
    available[v_slot] := v_lowest.available;
    v_through[v_slot] := v_lowest.lapsed_through;
  end if;

  -- Read after the lock: a call that has waited must not judge by an old time.
  v_now := clock_timestamp(); -- guard: clock-after-lock

  -- Pairs are compared, so that the plan uses the index by product and time, whatever the
  -- statistics say of the one by time: that index holds all that has ever lapsed.
  if exists (
      select from unnest(p_product_ids, v_through) as s (product_id, lapsed_through)
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
      select s.ctid, l.held, l.awaiting
      from unnest(p_product_ids, ctids, v_through) as s (product_id, ctid, lapsed_through)
      cross join lateral (
        select sum(l.held)::int as held, sum(l.awaiting)::int as awaiting
        from flashsale_data.lapses l
        where (l.product_id, l.lapses_at) > (s.product_id, s.lapsed_through) -- guard: lapsed-once
          and (l.product_id, l.lapses_at) <= (s.product_id, v_now)) l
      where l.held is not null) due
    where s.ctid = due.ctid;

    select array_agg(locked.ctid), array_agg(locked.available), array_agg(locked.lapsed_through)
      into ctids, available, v_through
    from (
      select stock.ctid, stock.available, stock.lapsed_through
      from unnest(p_product_ids, ctids) with ordinality as found (product_id, ctid, slot)
      left join lateral (
        select s.ctid, s.total_stock - s.held - s.awaiting - s.paid as available, s.lapsed_through
        from flashsale_data.stock s
        where s.product_id = found.product_id and found.ctid is not null
        order by s.version desc limit 1) stock on true
      order by found.slot) locked;
  end if;

  -- Units that were given back stay given back, even if the clock is set back.
  for v_i in 1 .. cardinality(p_product_ids) loop
    -- guard: clock-set-back
    effective_nows[v_i] := case when ctids[v_i] is not null then greatest(v_now, v_through[v_i]) end;
  end loop;
end
$$;
comment on function flashsale_data.lock_stock(bigint[], boolean) is
  'Locks stock rows and returns lapsed units to them; their ctids, units and times';
