-- Stock as it stands at p_now, without a lock: units that have lapsed by then count as
-- available, swept or not. p_now as in holds_at().
--
-- now: p_now, or lapsed_through if the clock has been set back before it: units that were
-- returned stay returned.
create or replace function flashsale_data.stock_at(p_now timestamptz)
returns table (product_id bigint, name text, price numeric, currency text, total_stock int,
               available int, held int, awaiting int, paid int, now timestamptz,
               is_test boolean, sale_status text, starts_at timestamptz, ends_at timestamptz,
               max_per_buyer int, listed boolean)
language sql stable
as $$
  select p.product_id, p.name, p.price, p.currency, s.total_stock,
         s.total_stock - (s.held - due.held) - (s.awaiting - due.awaiting) - s.paid,
         s.held - due.held, s.awaiting - due.awaiting, s.paid, clock.now,
         p.is_test, flashsale_data.sale_status(p.starts_at, p.ends_at, p.paused, p.cancelled, clock.now),
         p.starts_at, p.ends_at, p.max_per_buyer, p.listed
  from flashsale_data.products p
  cross join lateral (
    select s.* from flashsale_data.stock s
    where s.product_id = p.product_id
    order by s.version desc limit 1) s
  cross join lateral (select greatest(p_now, s.lapsed_through) as now) clock
  cross join lateral (
    select coalesce(sum(l.held), 0)::int as held, coalesce(sum(l.awaiting), 0)::int as awaiting
    from flashsale_data.lapses l
    where (l.product_id, l.lapses_at) > (p.product_id, s.lapsed_through)
      and (l.product_id, l.lapses_at) <= (p.product_id, clock.now)) due; -- guard: lapsed-units-available
$$;
comment on function flashsale_data.stock_at(timestamptz) is 'Every product with its exact stock at an instant';
