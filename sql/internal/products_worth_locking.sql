-- Which of these products (distinct ids) place_holds has to lock, by id or null, and which
-- exist, in arrays that line up with p_product_ids; and of those that are not on sale at this
-- moment, which are not locked either, the status and the row with the terms (null if there is
-- none).
--
-- Most requests of a sale find nothing left: that takes neither a lock nor a write. The
-- counters alone show whether there is something to lock for; lapsed units are summed up
-- only where they show nothing. Above READ COMMITTED a product is locked in any case, for
-- replays, too: the lock raises 40001 if anything of the product has changed since the
-- snapshot.
create or replace function flashsale_data.products_worth_locking(
  p_product_ids bigint[], out ids_to_lock bigint[], out existing boolean[],
  out sale_statuses text[], out closed flashsale_data.products[])
language plpgsql
as $$
declare
  v_keeps_snapshot boolean := flashsale_data.keeps_snapshot();
  v_now            timestamptz;
  v_gated          boolean;
begin
  select array_agg(case when product.free > 0
                          or v_keeps_snapshot -- guard: sold-out-in-snapshot
                        then product.product_id end),
         array_agg(product.product_id is not null), bool_or(product.gated)
    into ids_to_lock, existing, v_gated
  from (
    select s.product_id, s.free, s.gated
    from unnest(p_product_ids) with ordinality as requested (product_id, slot)
    left join lateral (
      select s.product_id, s.total_stock - s.held - s.awaiting - s.paid as free, s.gated
      from flashsale_data.stock s
      where s.product_id = requested.product_id
      order by s.version desc limit 1) s on true
    order by requested.slot) product;
  if v_gated and not v_keeps_snapshot then -- guard: early-without-lock
    v_now := flashsale_data.read_clock();
    select array_agg(case when requested.status <> 'open' then requested.status end),
           array_agg(case when requested.status <> 'open' then requested.product end),
           array_agg(case when requested.status = 'open' then requested.id_to_lock end)
      into sale_statuses, closed, ids_to_lock
    from (
      select wanted.id_to_lock, p as product,
             flashsale_data.sale_status(p.starts_at, p.ends_at, p.paused, p.cancelled, v_now) as status
      from unnest(p_product_ids, ids_to_lock) with ordinality as wanted (product_id, id_to_lock, slot)
      left join flashsale_data.products p on p.product_id = wanted.product_id
      order by wanted.slot) requested;
  end if;
  if array_position(ids_to_lock, null) is null then
    return;
  end if;

  v_now := flashsale_data.read_clock();
  ids_to_lock := array(
    select coalesce(requested.id_to_lock, (
      select s.product_id from flashsale_data.stock_at(v_now) s
      where s.product_id = requested.product_id and s.available > 0 and requested.sale_status is null))
    from unnest(p_product_ids, ids_to_lock, sale_statuses) with ordinality
      as requested (product_id, id_to_lock, sale_status, slot)
    order by requested.slot);
end
$$;
comment on function flashsale_data.products_worth_locking(bigint[]) is
  'Which products place_holds has to lock, and which exist';
