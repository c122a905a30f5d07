-- Moves a slot, steps 2 and 5 (see export_slot()): keeps one part of its rows, as it was exported, until
-- load_slot(). Commit each: once the last one is committed, the slot survives the loss of its source. A part of
-- another move replaces those of earlier ones, which have not been given up.
--
-- Refuses  SA009 invalid_request.
create or replace function flashsale.receive_slot(
  p_slot int, p_move_id uuid, p_table_name text, p_part int, p_rows text)
returns void
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_name  text;
  v_last  bigint;
  v_found bigint;
begin
  perform flashsale_data.check_slot(p_slot, false);
  if p_move_id is null or p_part is null or p_rows is null
     or not (p_table_name = 'sequences' or exists (
       select from flashsale_data.slot_tables() t where t.table_name = p_table_name)) is true then
    perform flashsale_data.raise_refusal('SA009', 'A part of a slot is received as it was exported.');
  end if;
  if not exists (
      select from flashsale_data.arriving_rows a where a.slot = p_slot and a.move_id = p_move_id) then
    delete from flashsale_data.arriving_rows a where a.slot = p_slot;
    -- What an earlier stay of the slot has left.
    perform flashsale_data.delete_slot(p_slot); -- guard: cleared-before-arrival
  end if;
  insert into flashsale_data.arriving_rows (slot, move_id, table_name, part, rows)
  values (p_slot, p_move_id, p_table_name, p_part, p_rows)
  on conflict (slot, table_name, part) do nothing;

  if p_table_name = 'sequences' then
    -- By drawing: a sequence that is set may be set back behind what others have drawn meanwhile.
    for v_name, v_last in
      select s.key, s.value::bigint from jsonb_each_text(p_rows::jsonb - 'parts') s
    loop
      perform count(nextval(v_name::regclass))
      from generate_series(coalesce(pg_sequence_last_value(v_name::regclass), 0) + 1, v_last); -- guard: ids-after-move
    end loop;
    -- The last part of all: the others must be here.
    select count(*) into v_found
    from flashsale_data.arriving_rows a
    where a.slot = p_slot and a.move_id = p_move_id and a.table_name <> 'sequences' and a.part >= 1000000;
    if v_found <> (p_rows::jsonb ->> 'parts')::bigint then -- guard: all-parts-received
      perform flashsale_data.raise_refusal('SA009', format('%s of %s parts have been received.', v_found,
        p_rows::jsonb ->> 'parts'));
    end if;
  end if;
end
$$;
comment on function flashsale.receive_slot(int, uuid, text, int, text) is 'Moves a slot: keeps a part of its rows';
revoke execute on function flashsale.receive_slot(int, uuid, text, int, text) from public;
grant execute on function flashsale.receive_slot(int, uuid, text, int, text) to flashsale_ops;
