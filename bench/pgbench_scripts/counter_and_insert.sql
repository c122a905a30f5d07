with taken as (
  update bench.counters set available = available - 1 where product_id = 1 and available >= 1
  returning product_id)
insert into bench.counted_holds (product_id, qty, expires_at)
select product_id, 1, now() + interval '2 minutes' from taken
returning hold_id, expires_at;
