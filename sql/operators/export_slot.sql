-- Moves a slot to another shard, step 1 of 8. The steps can be repeated after an interruption, and at no
-- instant two shards own the slot; flashsale shard move takes them, and resumes after whatever has interrupted them:
--
--   at the source, in one transaction:         at the target:
--   1 export_slot()
--                                              2 receive_slot(), each row of 1, committed at once
--                                              3 load_slot(), in a transaction that stays open
--   4 export_slot_changes()  the slot stands still
--                                              5 receive_slot(), each row of 4, committed at once; load_slot()
--   6 give_up_slot(), commit
--                                              7 own_slot(), commit: it is sold again
--   8 clear_slot()
--
-- Up to 6 the source owns the slot, and a new export_slot() begins again. Between its commit and that of
-- own_slot(), which only needs what was received, no shard does. The view slots shows on each shard where a move stands.
--
-- Returns the rows that can be copied while the slot is sold on, in parts, for receive_slot() and under the
-- name move_id. One purge, forget_tests() or move at a time, to commit.
--
-- Refuses  SA009 invalid_request, also above READ COMMITTED and for a slot with test products: they are
--          forgotten first (forget_tests()); SA029 wrong_shard if the slot is not owned.
create or replace function flashsale.export_slot(p_slot int)
returns table (move_id uuid, table_name text, part int, rows text)
language plpgsql security definer
set search_path = pg_catalog, pg_temp set jit = off
set timezone = 'UTC' set datestyle = 'ISO' set intervalstyle = 'postgres' set bytea_output = 'hex'
as $$
#variable_conflict use_column
declare
  v_move_id uuid := gen_random_uuid();
  v_since   xid8;
  v_table   record;
begin
  perform flashsale_data.check_slot(p_slot, true);
  -- A purge deletes what has been copied.
  perform pg_advisory_xact_lock(hashtext('flashsale.purge'), 0); -- guard: move-without-purge
  perform flashsale_data.check_slot(p_slot, true);
  if exists (
      select from flashsale_data.products p cross join flashsale_data.shard s
      where p.is_test and p.product_id % s.slots = p_slot) then -- guard: tests-do-not-move
    perform flashsale_data.raise_refusal('SA009', format('Slot %s has test products: forget them first.', p_slot));
  end if;
  -- Read before the rows: what a transaction writes that is not older than this is among the changes.
  v_since := pg_snapshot_xmin(pg_current_snapshot());
  insert into flashsale_data.departed_slots as d (slot, move_id, transaction_id, changed_since)
  values (p_slot, v_move_id, pg_current_xact_id(), v_since)
  on conflict (slot) do update
  set move_id = excluded.move_id, transaction_id = excluded.transaction_id,
      changed_since = excluded.changed_since, departed_at = null;

  -- What refers to other rows before these: each table is read as it is by then, and an order whose hold was placed
  -- after the holds were read could not be loaded.
  for v_table in select t.* from flashsale_data.slot_tables() t where t.is_copied_early order by t.place desc loop
    return query
    select v_move_id, v_table.table_name, r.part, r.rows
    from flashsale_data.slot_rows(p_slot, v_table.table_name,
      case v_table.table_name when 'payments' then 't.result <> ''stored''' else 'true' end, 0) r;
  end loop;
  return query select v_move_id, 'sequences', 0, flashsale_data.slot_sequences()::text;
end
$$;
comment on function flashsale.export_slot(int) is 'Begins to move a slot to another shard: the rows to copy early';
revoke execute on function flashsale.export_slot(int) from public;
grant execute on function flashsale.export_slot(int) to flashsale_ops;
