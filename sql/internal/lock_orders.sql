-- Locks orders until commit, those that exist by their row and the others by
-- their id. An id that is in neither result is busy. Like lock_stock, it never
-- waits for one while it holds another, and waits for one if all are busy.
create or replace function flashsale_data.lock_orders(
  p_order_ids bigint[], out known bigint[], out unknown bigint[])
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  v_ids    bigint[] := array(select distinct wanted from unnest(p_order_ids) wanted order by wanted);
  v_alone  boolean := cardinality(v_ids) = 1;
  v_exist  bigint[];
  v_absent bigint[];
begin
  if v_alone then
    known := array(
      select o.order_id from flashsale_data.orders o where o.order_id = any (v_ids)
      for no key update); -- guard: order-lock
  else
    known := array(
      select o.order_id from flashsale_data.orders o where o.order_id = any (v_ids)
      for no key update skip locked); -- guard: order-lock
  end if;
  if cardinality(known) = cardinality(v_ids) then
    unknown := '{}';
    return;
  end if;

  v_exist := array(select o.order_id from flashsale_data.orders o where o.order_id = any (v_ids));
  v_absent := array(select unnest(v_ids) except select unnest(v_exist || known));
  unknown := flashsale_data.lock_order_ids(v_absent, p_wait => v_alone);

  if cardinality(known || unknown) = 0 then
    known := array(
      select o.order_id from flashsale_data.orders o
      where o.order_id = (select min(e) from unnest(v_exist) e)
      for no key update); -- guard: order-lock
    if cardinality(known) = 0 then
      -- None exists; or the one just waited for does not any more: purged.
      unknown := flashsale_data.lock_order_ids(
        array[coalesce((select min(e) from unnest(v_exist) e), v_absent[1])], p_wait => true);
    end if;
  end if;

  -- The transaction that held the id may have created the order. A caller above
  -- READ COMMITTED cannot see that, and gets 40001.
  if cardinality(unknown) > 0 then
    perform flashsale_data.reject_unseen(p_order_ids => unknown); -- guard: unseen-orders
    v_exist := array(select o.order_id from flashsale_data.orders o where o.order_id = any (unknown));
    if cardinality(v_exist) > 0 then
      unknown := array(select unnest(unknown) except select unnest(v_exist));
      if v_alone then
        known := array(
          select o.order_id from flashsale_data.orders o where o.order_id = any (v_exist)
          for no key update); -- guard: order-lock
      else
        known := known || array(
          select o.order_id from flashsale_data.orders o where o.order_id = any (v_exist)
          for no key update skip locked); -- guard: order-lock
      end if;
    end if;
  end if;
end
$$;
comment on function flashsale_data.lock_orders(bigint[]) is
  'Locks orders, known and unknown; returns the ids it locked';
