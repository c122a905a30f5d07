-- Moves a slot, step 7 (see export_slot()), once its source has given it up under p_move_id, as the source's view
-- slots shows: from its commit on this shard owns it. Loads what has not been loaded yet.
--
-- Locks    the shard, then the inbox, to commit.
-- Refuses  SA009 invalid_request.
create or replace function flashsale.own_slot(p_slot int, p_move_id uuid)
returns void
language plpgsql security definer
set search_path = pg_catalog, pg_temp set jit = off
set timezone = 'UTC' set datestyle = 'ISO' set intervalstyle = 'postgres' set bytea_output = 'hex'
as $$
declare
  v_slots  int;
  v_stored int;
begin
  select s.slots into v_slots from flashsale_data.shard s for update;
  perform flashsale_data.check_slot(p_slot, false);
  perform from flashsale_data.arriving_rows a
  where a.slot = p_slot and a.move_id = p_move_id and a.table_name = 'sequences' and a.part = 1000000; -- guard: own-what-is-complete
  if not found then
    perform flashsale_data.raise_refusal('SA009', format('Slot %s has not been received as a whole under this move_id.', p_slot));
  end if;
  perform flashsale.load_slot(p_slot, p_move_id);
  perform flashsale_data.load_part(a.table_name, t.key_columns, a.rows)
  from flashsale_data.arriving_rows a
  join flashsale_data.slot_tables() t on t.table_name = a.table_name
  where a.slot = p_slot and a.table_name = 'stock';
  delete from flashsale_data.arriving_rows a where a.slot = p_slot;
  delete from flashsale_data.departed_slots d where d.slot = p_slot;

  perform flashsale_data.announce_ledger_write();
  insert into flashsale_data.events (kind, at, product_id, available_delta, data)
  select 'product_moved_in', clock_timestamp(), l.product_id, l.available, jsonb_build_object( -- guard: moved-into-ledger
    'starts_at', p.starts_at, 'ends_at', p.ends_at, 'paused', p.paused, 'cancelled', p.cancelled,
    'max_per_buyer', p.max_per_buyer, 'max_per_hold', p.max_per_hold, 'limit_group', p.limit_group,
    'listed', p.listed, 'hold_time', p.hold_time, 'payment_window', p.payment_window)
  from flashsale_data.slot_ledger(p_slot) l
  join flashsale_data.products p on p.product_id = l.product_id;
  -- The inbox row is the last lock of all.
  select count(*)::int into v_stored
  from flashsale_data.payments p where p.result = 'stored' and p.order_id % v_slots = p_slot;
  update flashsale_data.inbox set stored = stored + v_stored where v_stored > 0; -- guard: moved-into-inbox
  update flashsale_data.shard s set owned = array(select unnest(s.owned || p_slot) order by 1);
end
$$;
comment on function flashsale.own_slot(int, uuid) is 'Moves a slot: this shard owns it from now on';
revoke execute on function flashsale.own_slot(int, uuid) from public;
grant execute on function flashsale.own_slot(int, uuid) to flashsale_ops;
