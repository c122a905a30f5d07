-- Deletes the rows of a slot in these tables (null: in all whose rows move), those that refer to others first. Returns
-- how many.
create or replace function flashsale_data.delete_slot(p_slot int, p_table_names text[] default null)
returns bigint
language plpgsql
as $$
declare
  -- @plpgsql_check_options: security_warnings = off, performance_warnings = off
  v_table   record;
  v_rows    bigint;
  v_deleted bigint := 0::bigint;
begin
  for v_table in
    select t.* from flashsale_data.slot_tables() t
    where p_table_names is null or t.table_name = any (p_table_names)
    order by t.place desc
  loop
    execute format('delete from flashsale_data.%I t where %s', v_table.table_name, v_table.condition)
    using p_slot, (select s.slots from flashsale_data.shard s);
    get diagnostics v_rows = row_count;
    v_deleted := v_deleted + v_rows;
  end loop;
  return v_deleted;
end
$$;
comment on function flashsale_data.delete_slot(int, text[]) is 'Deletes the rows of a slot';
