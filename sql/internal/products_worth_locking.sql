-- Which of these products (distinct ids) place_holds has to lock, and which exist, in
-- arrays that line up with p_product_ids; wanted has the id, or null.
--
-- Most requests of a sale find nothing left: that takes neither a lock nor a write. The
-- counters alone show whether there is something to lock for; lapsed units are summed up
-- only where they show nothing. Above READ COMMITTED a product is locked in any case, for
-- replays, too: the lock raises 40001 if anything of the product has changed since the
-- snapshot.
create or replace function flashsale_data.products_worth_locking(
  p_product_ids bigint[], out wanted bigint[], out known boolean[])
language plpgsql
as $$
declare
  v_keeps_snapshot boolean := flashsale_data.keeps_snapshot();
  v_now            timestamptz;
begin
  select array_agg(case when product.free > 0
                          or v_keeps_snapshot -- guard: sold-out-in-snapshot
                        then product.product_id end),
         array_agg(product.product_id is not null)
    into wanted, known
  from (
    select s.product_id, s.free
    from unnest(p_product_ids) with ordinality as asked (product_id, slot)
    left join lateral (
      select s.product_id, s.total_stock - s.held - s.awaiting - s.paid as free
      from flashsale_data.stock s
      where s.product_id = asked.product_id
      order by s.version desc limit 1) s on true
    order by asked.slot) product;
  if array_position(wanted, null) is null then
    return;
  end if;

  v_now := flashsale_data.read_clock();
  wanted := array(
    select coalesce(asked.wanted, (
      select s.product_id from flashsale_data.stock_at(v_now) s
      where s.product_id = asked.product_id and s.available > 0))
    from unnest(p_product_ids, wanted) with ordinality as asked (product_id, wanted, slot)
    order by asked.slot);
end
$$;
comment on function flashsale_data.products_worth_locking(bigint[]) is
  'Which products place_holds has to lock, and which exist';
