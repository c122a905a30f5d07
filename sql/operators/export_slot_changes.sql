-- Moves a slot, step 4 (see export_slot()): the slot stands still from here on. Returns what has changed since
-- export_slot(), in the same transaction, and what was left out there, as it does; the last row completes
-- the move. What waits for a product of the slot is refused by SA029 once the slot has been given up.
--
-- Orders and holds are read without their locks: a transaction that has locked one waits for the product
-- before it changes it, and the sweep for the product's lapses. They are cleared after it is refused.
--
-- Locks    the shard; the products, in ascending order; their lapses; payments of the slot; the counter of
--          rejections and rejected webhooks of the slot; the inbox.
-- Refuses  SA009 invalid_request; SA029 wrong_shard.
create or replace function flashsale.export_slot_changes(p_slot int, p_move_id uuid)
returns table (move_id uuid, table_name text, part int, rows text)
language plpgsql security definer
set search_path = pg_catalog, pg_temp set jit = off
set timezone = 'UTC' set datestyle = 'ISO' set intervalstyle = 'postgres' set bytea_output = 'hex'
as $$
#variable_conflict use_column
declare
  v_slots      int;
  v_since      xid8;
  v_product_id bigint;
  v_table      record;
  v_parts      int := 0;
begin
  perform flashsale_data.check_move(p_slot, p_move_id);
  v_since := (select d.changed_since from flashsale_data.departed_slots d where d.slot = p_slot);

  -- 1 Lock: no product is created, then none is sold, swept, or refunded
  select s.slots into v_slots from flashsale_data.shard s for update;
  perform flashsale_data.check_slot(p_slot, true);
  for v_product_id in
    select p.product_id from flashsale_data.products p where p.product_id % v_slots = p_slot order by 1
  loop
    perform flashsale_data.lock_stock(array[v_product_id]); -- guard: moved-product-locked
  end loop;
  perform from flashsale_data.lapses l where l.product_id % v_slots = p_slot for update; -- guard: moved-lapses-locked
  perform from flashsale_data.payments p where p.order_id % v_slots = p_slot for update; -- guard: moved-payments-locked
  perform from flashsale_data.rejection_counter for no key update;
  perform from flashsale_data.rejected_webhooks r where r.order_id > 0 and r.order_id % v_slots = p_slot for update; -- guard: moved-rejections-locked
  perform from flashsale_data.inbox for no key update; -- guard: moved-inbox-locked

  -- 2 Read; statements of their own, after the locks
  for v_table in select t.* from flashsale_data.slot_tables() t order by t.place loop
    for part, rows in
      select r.part, r.rows
      from flashsale_data.slot_rows(p_slot, v_table.table_name,
        case when not v_table.is_copied_early then 'true'
             else format('flashsale_data.written_since(t.xmin, %L)', v_since)
                  || case v_table.table_name when 'payments' then ' or t.result = ''stored''' else '' end end, -- guard: stored-webhooks-move
        1000000) r
    loop
      move_id := p_move_id;
      table_name := v_table.table_name;
      v_parts := v_parts + 1;
      return next;
    end loop;
  end loop;
  return query
  select p_move_id, 'sequences', 1000000, (flashsale_data.slot_sequences() || jsonb_build_object('parts', v_parts))::text;
end
$$;
comment on function flashsale.export_slot_changes(int, uuid) is 'Moves a slot: locks it; the rest of its rows';
revoke execute on function flashsale.export_slot_changes(int, uuid) from public;
grant execute on function flashsale.export_slot_changes(int, uuid) to flashsale_ops;
