create or replace view flashsale.active_holds as
select h.hold_id, h.product_id, h.qty, h.placed_at, h.expires_at, h.time_left
from flashsale.list_active_holds() h;
comment on view flashsale.active_holds is 'Holds that reserve units at this instant';
revoke all on flashsale.active_holds from public;
grant select on flashsale.active_holds to flashsale_ops;
