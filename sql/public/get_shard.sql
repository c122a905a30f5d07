-- Which share of the shop this database has: slots, the number of slots of the whole shop (a power of two; 1:
-- this database has all of it), and owned, those of this shard, ascending. A product, its holds and its orders
-- have ids with the same remainder of a division by slots: their slot. A call with an id of a slot that
-- is not owned is refused as a whole: SA029 wrong_shard.
create or replace function flashsale.get_shard(out slots int, out owned int[])
language sql stable security definer
set search_path = pg_catalog, pg_temp
as $$
  select s.slots, s.owned from flashsale_data.shard s;
$$;
comment on function flashsale.get_shard() is 'Which share of the shop this database has';
revoke execute on function flashsale.get_shard() from public;
grant execute on function flashsale.get_shard() to flashsale_api;
