-- Locks hold rows until commit, so that only one of create_orders, release_holds and the
-- sweep changes a hold's state. p_hold_ids are distinct ids, null for none. holds and
-- ctids line up with them: the rows as they are now that they are locked, and where they
-- are until commit. A hold that is locked elsewhere, or unknown, is null. As lock_stock():
-- never waits for one hold while it holds another, and waits for the lowest id if all are
-- locked elsewhere.
create or replace function flashsale_data.lock_holds(
  p_hold_ids bigint[], out holds flashsale_data.holds[], out ctids tid[])
language plpgsql
as $$
declare
  v_lowest record;
  v_i      int;
begin
  if cardinality(p_hold_ids) > 1 then
    select array_agg(locked.hold), array_agg(locked.ctid) into holds, ctids
    from (
      select hold.hold, hold.ctid
      from unnest(p_hold_ids) with ordinality as wanted (hold_id, i)
      left join lateral (
        select h as hold, h.ctid
        from flashsale_data.holds h
        where h.hold_id = wanted.hold_id
        for no key update skip locked -- guard: hold-lock
      ) hold on true
      order by wanted.i) locked;
  end if;
  if coalesce(cardinality(array_remove(ctids, null)), 0) = 0 then
    select h as hold, h.ctid into v_lowest
    from flashsale_data.holds h
    where h.hold_id = (select min(wanted) from unnest(p_hold_ids) as wanted)
    for no key update; -- guard: hold-lock
    if found then
      v_i := array_position(p_hold_ids, (v_lowest.hold).hold_id);
      holds[v_i] := v_lowest.hold;
      ctids[v_i] := v_lowest.ctid;
    end if;
  end if;
end
$$;
comment on function flashsale_data.lock_holds(bigint[]) is
  'Locks hold rows; returns them as they are now, and their ctids';
