-- Moves a slot, step 6 (see export_slot()), in the transaction that has exported it, once all of its rows have been
-- received: from its commit on this shard does not own it. Its orders and holds are left for
-- clear_slot(), unseen, since their products have no stock any more; its ledger stays, and adds up to 0.
--
-- Refuses  SA009 invalid_request.
create or replace function flashsale.give_up_slot(p_slot int, p_move_id uuid)
returns void
language plpgsql security definer
set search_path = pg_catalog, pg_temp set jit = off
as $$
declare
  v_slots  int := (select s.slots from flashsale_data.shard s);
  v_stored int;
begin
  perform flashsale_data.check_move(p_slot, p_move_id);
  perform flashsale_data.announce_ledger_write();
  insert into flashsale_data.events (kind, at, product_id, available_delta)
  select 'product_moved_out', clock_timestamp(), l.product_id, -l.available -- guard: moved-out-of-ledger
  from flashsale_data.slot_ledger(p_slot) l;

  select count(*)::int into v_stored
  from flashsale_data.payments p where p.result = 'stored' and p.order_id % v_slots = p_slot;
  perform flashsale_data.delete_slot(p_slot, array(
    select t.table_name from flashsale_data.slot_tables() t
    where t.table_name not in ('products', 'holds', 'orders'))); -- guard: moved-stock-deleted
  update flashsale_data.inbox set stored = stored - v_stored where v_stored > 0; -- guard: moved-out-of-inbox
  update flashsale_data.shard s set owned = array_remove(s.owned, p_slot); -- guard: given-up
  update flashsale_data.departed_slots d set departed_at = clock_timestamp() where d.slot = p_slot;
end
$$;
comment on function flashsale.give_up_slot(int, uuid) is 'Moves a slot: this shard does not own it any more';
revoke execute on function flashsale.give_up_slot(int, uuid) from public;
grant execute on function flashsale.give_up_slot(int, uuid) to flashsale_ops;
