create or replace view flashsale.active_holds as
select h.hold_id, h.product_id, h.qty, h.placed_at, h.expires_at, h.expires_at - statement_timestamp() as time_left
from flashsale_data.current_holds h
where h.status = 'active' and h.expires_at > statement_timestamp();
comment on view flashsale.active_holds is 'Holds that reserve units at this instant';
revoke all on flashsale.active_holds from public;
grant select on flashsale.active_holds to flashsale_ops;
