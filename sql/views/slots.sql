create or replace view flashsale.slots as
select s.slot, s.owned, s.products, s.departed_move_id, s.departed_at, s.arriving_move_id, s.is_complete
from flashsale.list_slots() s;
comment on view flashsale.slots is 'Every slot of the shop as this shard sees it: owned, given up, on its way here';
revoke all on flashsale.slots from public;
grant select on flashsale.slots to flashsale_ops;
