-- Moves a slot, steps 3 and 5 (see export_slot()): puts what has been received into the tables, but for the stock of
-- its products, without which none of it is seen. For the transaction of own_slot(): one that is rolled
-- back leaves the parts as they were.
-- Webhooks keep their order of arrival, under new numbers. Returns how many rows were loaded.
--
-- Refuses  SA009 invalid_request, also if a limit group of the slot has products of another slot here.
create or replace function flashsale.load_slot(p_slot int, p_move_id uuid)
returns bigint
language plpgsql security definer
set search_path = pg_catalog, pg_temp set jit = off
set timezone = 'UTC' set datestyle = 'ISO' set intervalstyle = 'postgres' set bytea_output = 'hex'
as $$
declare
  v_part    record;
  v_rows    bigint;
  v_loaded  bigint := 0::bigint;
begin
  perform flashsale_data.check_slot(p_slot, false);
  for v_part in
    with part as (
      delete from flashsale_data.arriving_rows a
      where a.slot = p_slot and a.move_id = p_move_id
        and a.table_name not in ('sequences', 'stock') -- guard: stock-last
      returning a.table_name, a.part, a.rows
    )
    select p.table_name, p.rows, t.key_columns
    from part p join flashsale_data.slot_tables() t on t.table_name = p.table_name
    -- Changes after what they have changed.
    order by p.part >= 1000000, t.place, p.part
  loop
    v_rows := flashsale_data.load_part(v_part.table_name, v_part.key_columns, v_part.rows);
    v_loaded := v_loaded + v_rows;
  end loop;
  perform flashsale_data.check_arriving_groups(p_slot);
  return v_loaded;
end
$$;
comment on function flashsale.load_slot(int, uuid) is 'Moves a slot: puts what has been received into the tables';
revoke execute on function flashsale.load_slot(int, uuid) from public;
grant execute on function flashsale.load_slot(int, uuid) to flashsale_ops;
