-- Stock as it is at this instant, without a lock: for answers that promise
-- nothing. Units whose time has run out count as available whether or not
-- anybody has tidied them. Unknown products have no row.
--
-- now: the clock, or lapsed_through if the clock has been set back behind it:
-- what has once been given back stays given back.
create or replace function flashsale_data.read_stock(p_product_ids bigint[])
returns table (product_id bigint, total_stock int, available int, held int, awaiting int, paid int,
               now timestamptz)
language sql stable rows 1
set search_path = pg_catalog, pg_temp
as $$
  select s.product_id, s.total_stock,
         s.total_stock - (s.held - due.held) - (s.awaiting - due.awaiting) - s.paid,
         s.held - due.held, s.awaiting - due.awaiting, s.paid,
         clock.now
  from (select distinct unnest(p_product_ids)) as wanted (product_id)
  cross join lateral (
    select s.* from flashsale_data.stock s
    where s.product_id = wanted.product_id
    order by s.version desc limit 1) s
  cross join lateral (select greatest(clock_timestamp(), s.lapsed_through)) as clock (now)
  cross join lateral (
    select coalesce(sum(l.held), 0)::int as held, coalesce(sum(l.awaiting), 0)::int as awaiting
    from flashsale_data.lapses l
    where l.product_id = wanted.product_id
      and l.lapses_at > s.lapsed_through and l.lapses_at <= clock.now) due;
$$;
comment on function flashsale_data.read_stock(bigint[]) is 'Exact stock of these products, without a lock';
