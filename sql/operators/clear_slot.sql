-- Moves a slot, step 8 (see export_slot()): deletes what it has left at its source. Nothing shows these rows any more.
-- Returns how many.
--
-- Locks    the rows, to commit.
-- Refuses  SA009 invalid_request, also for a slot that this shard owns.
create or replace function flashsale.clear_slot(p_slot int)
returns bigint
language plpgsql security definer
set search_path = pg_catalog, pg_temp set jit = off
as $$
begin
  perform from flashsale_data.shard for key share;
  perform flashsale_data.check_slot(p_slot, false); -- guard: owned-not-cleared
  return flashsale_data.delete_slot(p_slot);
end
$$;
comment on function flashsale.clear_slot(int) is 'Moves a slot: deletes what it has left at its source';
revoke execute on function flashsale.clear_slot(int) from public;
grant execute on function flashsale.clear_slot(int) to flashsale_ops;
