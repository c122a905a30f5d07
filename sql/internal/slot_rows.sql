-- The rows of a table that are of a slot, in parts of 10,000: each an array of rows of the table as text,
-- which load_slot() reads. p_part is the number of the first part. p_condition: which rows of them.
create or replace function flashsale_data.slot_rows(
  p_slot int, p_table_name text, p_condition text, p_part int)
returns table (part int, rows text)
language plpgsql stable
as $$
begin
  -- @plpgsql_check_options: extra_warnings = off
  return query execute format(
    'select %s + numbered.n, array_agg(numbered.r)::text'
    || ' from (select t as r, ((row_number() over ()) / 10000)::int as n'
    || '       from flashsale_data.%I t'
    || '       where (%s) and (%s)) numbered'
    || ' group by numbered.n',
    p_part, p_table_name, (select s.condition from flashsale_data.slot_tables() s where s.table_name = p_table_name),
    p_condition)
  using p_slot, (select s.slots from flashsale_data.shard s);
end
$$;
comment on function flashsale_data.slot_rows(int, text, text, int) is 'The rows of a table that are of a slot, in parts';
