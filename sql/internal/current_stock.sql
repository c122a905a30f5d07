-- Stock as it is at this instant, without a lock: for answers that promise
-- nothing. Units whose time has run out count as available whether or not
-- anybody has tidied them.
--
-- now: the clock, or lapsed_through if the clock has been set back behind it:
-- what has once been given back stays given back.
create or replace view flashsale_data.current_stock as
select p.product_id, p.name, p.price, p.currency, s.total_stock,
       s.total_stock - (s.held - due.held) - (s.awaiting - due.awaiting) - s.paid as available,
       s.held - due.held as held, s.awaiting - due.awaiting as awaiting, s.paid,
       clock.now
from flashsale_data.products p
cross join lateral (
  select s.* from flashsale_data.stock s
  where s.product_id = p.product_id
  order by s.version desc limit 1) s
cross join lateral (select greatest(clock_timestamp(), s.lapsed_through) as now) clock
cross join lateral (
  select coalesce(sum(l.held), 0)::int as held, coalesce(sum(l.awaiting), 0)::int as awaiting
  from flashsale_data.lapses l
  where (l.product_id, l.lapses_at) > (p.product_id, s.lapsed_through)
    and (l.product_id, l.lapses_at) <= (p.product_id, clock.now)) due;
comment on view flashsale_data.current_stock is 'Every product with its exact stock at this instant';
