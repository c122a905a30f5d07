create or replace view flashsale.active_holds as
select h.hold_id, h.product_id, h.qty, h.placed_at, h.expires_at, h.expires_at - clock.now as time_left
from flashsale_data.holds h
cross join flashsale_data.statement_clock clock
where h.status = 'active' and h.expires_at > clock.now
  and h.expires_at > (
    select s.lapsed_through from flashsale_data.stock s
    where s.product_id = h.product_id
    order by s.version desc limit 1);
comment on view flashsale.active_holds is 'Holds that reserve units when the statement begins';
revoke all on flashsale.active_holds from public;
grant select on flashsale.active_holds to flashsale_ops;
