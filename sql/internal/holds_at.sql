-- Holds as they stand at p_now: one that has lapsed by then reads as expired, swept or not.
-- p_now must not be newer than the snapshot of the query (read_clock()): an order that the
-- snapshot does not show may have used the hold in time. Has no settings of its own, so that
-- the planner inlines it into the query.
create or replace function flashsale_data.holds_at(p_now timestamptz)
returns setof flashsale_data.holds
language sql stable
as $$
  select h.hold_id, h.product_id, h.qty,
         case when clock.lapsed then 'expired' else h.status end,
         h.placed_at, h.expires_at, h.idempotency_key, h.currency, h.price, h.buyer, h.extensions
  from flashsale_data.holds h
  cross join lateral (
    -- guard: expired-at-instant
    select h.status = 'active' and h.expires_at <= greatest(p_now, s.lapsed_through) as lapsed
    from flashsale_data.stock s
    where s.product_id = h.product_id
    order by s.version desc limit 1) clock;
$$;
comment on function flashsale_data.holds_at(timestamptz) is 'Holds as they stand at an instant';
