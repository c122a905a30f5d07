-- Locks orders until commit, those that exist by their row and the others by their id.
-- p_order_ids are distinct ids, ascending. The results line up with them: the rows as they
-- are now that they are locked, their ctids, and whether the id is locked and has no order.
-- One that is neither a row nor absent is locked elsewhere. As lock_stock(): never waits for one
-- order while it holds another, and waits for one if all are locked elsewhere.
create or replace function flashsale_data.lock_orders(
  p_order_ids bigint[], out orders flashsale_data.orders[], out ctids tid[], out absent boolean[])
language plpgsql
as $$
declare
  v_alone               boolean := cardinality(p_order_ids) = 1;
  v_unknown_ids         bigint[];
  v_locked_elsewhere_id bigint;
  v_locked_ids          bigint[];
  v_found               record;
begin
  if v_alone then
    select array_agg(locked.o), array_agg(locked.ctid) into orders, ctids
    from (
      select o, o.ctid from flashsale_data.orders o
      where o.order_id = p_order_ids[1]
      for no key update -- guard: order-lock
    ) locked;
  else
    select array_agg(locked.o), array_agg(locked.ctid) into orders, ctids
    from (
      select o.o, o.ctid
      from unnest(p_order_ids) with ordinality as wanted (order_id, slot)
      left join lateral (
        select o, o.ctid from flashsale_data.orders o
        where o.order_id = wanted.order_id
        for no key update skip locked -- guard: order-lock
      ) o on true
      order by wanted.slot) locked;
  end if;
  if array_position(ctids, null) is null and ctids is not null then
    return;
  end if;

  select array_agg(wanted.order_id) filter (where o.order_id is null),
         min(wanted.order_id) filter (where o.order_id is not null)
    into v_unknown_ids, v_locked_elsewhere_id
  from unnest(p_order_ids, ctids) as wanted (order_id, ctid)
  left join flashsale_data.orders o on o.order_id = wanted.order_id
  where wanted.ctid is null;
  v_locked_ids := flashsale_data.lock_order_ids(coalesce(v_unknown_ids, '{}'), p_wait => v_alone);

  if v_locked_ids = '{}' and coalesce(cardinality(array_remove(ctids, null)), 0) = 0 then
    select array_position(p_order_ids, o.order_id) as slot, o, o.ctid into v_found
    from flashsale_data.orders o
    where o.order_id = v_locked_elsewhere_id
    for no key update; -- guard: order-lock
    if found then
      orders[v_found.slot] := v_found.o;
      ctids[v_found.slot] := v_found.ctid;
    else
      -- None exists; or the one just waited for has been purged.
      v_locked_ids := flashsale_data.lock_order_ids(
        array[coalesce(v_locked_elsewhere_id, v_unknown_ids[1])], p_wait => true);
    end if;
  end if;
  if v_locked_ids = '{}' then
    return;
  end if;

  -- The transaction that held the id may have created the order. A caller above
  -- READ COMMITTED cannot see that, and gets 40001.
  perform flashsale_data.reject_stale_snapshot(p_order_ids => v_locked_ids); -- guard: unseen-orders
  absent := array(
    select o.order_id is null and wanted.order_id in (select unnest(v_locked_ids))
    from unnest(p_order_ids) with ordinality as wanted (order_id, slot)
    left join flashsale_data.orders o on o.order_id = wanted.order_id
    order by wanted.slot);
  if v_alone and not absent[1] then
    select array_agg(locked.o), array_agg(locked.ctid) into orders, ctids
    from (
      select o, o.ctid from flashsale_data.orders o
      where o.order_id = p_order_ids[1]
      for no key update -- guard: order-lock
    ) locked;
  elsif false = any (absent) then
    for v_found in
      select wanted.slot, o.o, o.ctid
      from unnest(p_order_ids, ctids, absent) with ordinality as wanted (order_id, ctid, absent, slot)
      cross join lateral (
        select o, o.ctid from flashsale_data.orders o
        where o.order_id = wanted.order_id
        for no key update skip locked -- guard: order-lock
      ) o
      where wanted.ctid is null and not wanted.absent
    loop
      orders[v_found.slot] := v_found.o;
      ctids[v_found.slot] := v_found.ctid;
    end loop;
  end if;
end
$$;
comment on function flashsale_data.lock_orders(bigint[]) is
  'Locks orders, known and unknown: their rows, ctids, and which ids have no order';
