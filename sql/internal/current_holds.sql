-- Holds as they stand at this instant. A hold whose time is up reads as expired
-- whether or not anybody has tidied it.
create or replace view flashsale_data.current_holds as
select h.hold_id, h.product_id, h.qty,
       case when clock.lapsed then 'expired' else h.status end as status,
       h.placed_at, h.expires_at, h.idempotency_key
from flashsale_data.holds h
cross join lateral (
  select h.status = 'active' and h.expires_at <= greatest(clock_timestamp(), s.lapsed_through) as lapsed
  from flashsale_data.stock s
  where s.product_id = h.product_id
  order by s.version desc limit 1) clock;
comment on view flashsale_data.current_holds is 'Holds as they stand at this instant';
