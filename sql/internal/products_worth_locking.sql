-- Which of these products (distinct ids) place_holds has to lock, by id or null, and which
-- exist, in arrays that line up with p_product_ids; and the rows of those that are not on sale at
-- this moment, which are not locked either (null if there is none).
--
-- Most requests of a sale find nothing left, or come before it: that takes neither a lock nor a
-- write. The counters alone show whether there is something to lock for; lapsed units are summed
-- up, and terms read, only where they show nothing or the product has a window or is paused. Above
-- READ COMMITTED a product is locked in any case, for replays, too: the lock raises 40001 if
-- anything of the product has changed since the snapshot. Raises SA029 for a product of another shard.
create or replace function flashsale_data.products_worth_locking(
  p_product_ids bigint[], out ids_to_lock bigint[], out existing boolean[], out closed flashsale_data.products[])
language plpgsql
as $$
declare
  v_keeps_snapshot boolean := flashsale_data.keeps_snapshot();
  v_now            timestamptz;
  v_all_open       boolean;
begin
  select array_agg(case when product.free > 0
                          or v_keeps_snapshot -- guard: sold-out-in-snapshot
                        then product.product_id end),
         array_agg(case when product.gated then null else product.product_id is not null end)
    into ids_to_lock, existing
  from (
    select s.product_id, s.free, s.gated
    from unnest(p_product_ids) with ordinality as requested (product_id, slot)
    left join lateral (
      select s.product_id, s.gated,
             case when not s.gated -- guard: early-without-lock
                  then s.total_stock - s.held - s.awaiting - s.paid end as free
      from flashsale_data.stock s
      where s.product_id = requested.product_id
      order by s.version desc limit 1) s on true
    order by requested.slot) product;
  if array_position(ids_to_lock, null) is null then
    return;
  end if;
  if false = any (existing) then
    perform flashsale_data.check_owned(p_product_ids); -- guard: unknown-product-owned
  end if;

  v_now := flashsale_data.read_clock();
  -- Products with a window or a pause, which existing does not know yet: those that are closed are
  -- passed over from here on.
  if array_position(existing, null) is not null then
    select array_agg(case when requested.is_open then requested.product_id end),
           array_agg(requested.product_id is not null),
           array_agg(case when not requested.is_open then requested.product end),
           bool_and(requested.is_open)
      into p_product_ids, existing, closed, v_all_open
    from (
      select p.product_id, p as product,
             flashsale_data.sale_status(p.starts_at, p.ends_at, p.paused, p.cancelled, v_now) = 'open' as is_open
      from unnest(p_product_ids) with ordinality as wanted (product_id, slot)
      left join flashsale_data.products p on p.product_id = wanted.product_id
      order by wanted.slot) requested;
    if v_all_open then
      closed := null;
    end if;
  end if;
  ids_to_lock := array(
    select coalesce(requested.id_to_lock, (
      select s.product_id from flashsale_data.stock_at(v_now) s
      where s.product_id = requested.product_id and s.available > 0))
    from unnest(p_product_ids, ids_to_lock) with ordinality as requested (product_id, id_to_lock, slot)
    order by requested.slot);
end
$$;
comment on function flashsale_data.products_worth_locking(bigint[]) is
  'Which products place_holds has to lock, which exist, and which are not on sale';
