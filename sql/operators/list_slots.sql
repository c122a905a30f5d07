-- Every slot of the shop as this shard sees it, for the view slots. products: how many it has here; of a slot
-- that is not owned, what clear_slot() deletes. departed_move_id: the move by which it was last given up
-- here; arriving_move_id: the one whose rows have been received, and is_complete whether all of them.
create or replace function flashsale.list_slots()
returns table (slot int, owned boolean, products bigint, departed_move_id uuid, departed_at timestamptz,
               arriving_move_id uuid, is_complete boolean)
language sql stable security definer
set search_path = pg_catalog, pg_temp set jit = off
as $$
  select n.slot, n.slot = any (s.owned), coalesce(p.products, 0), d.move_id, d.departed_at, a.move_id,
         coalesce(a.is_complete, false)
  from flashsale_data.shard s
  cross join lateral generate_series(0, s.slots - 1) as n (slot)
  left join (
    select (q.product_id % t.slots)::int as slot, count(*) as products
    from flashsale_data.products q cross join flashsale_data.shard t group by 1) p on p.slot = n.slot
  left join flashsale_data.departed_slots d on d.slot = n.slot and d.departed_at is not null
  left join (
    select r.slot, r.move_id, bool_or(r.table_name = 'sequences' and r.part = 1000000) as is_complete
    from flashsale_data.arriving_rows r group by 1, 2) a on a.slot = n.slot
  order by n.slot;
$$;
comment on function flashsale.list_slots() is 'Every slot of the shop as this shard sees it';
revoke execute on function flashsale.list_slots() from public;
grant execute on function flashsale.list_slots() to flashsale_ops;
