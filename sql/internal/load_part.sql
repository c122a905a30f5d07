-- Writes one part of a slot, an array of rows as text, to its table; a row whose key is there already is replaced.
-- Webhooks keep their order of arrival, under new numbers. Returns how many rows it wrote.
create or replace function flashsale_data.load_part(p_table_name text, p_key_columns text[], p_rows text)
returns bigint
language plpgsql
as $$
declare
  -- @plpgsql_check_options: security_warnings = off, performance_warnings = off
  v_columns text;
  v_values  text;
  v_changes text;
  v_rows    bigint;
begin
  select string_agg(format('%I', a.attname), ', ' order by a.attnum),
         string_agg(format('r.%I', a.attname), ', ' order by a.attnum),
         string_agg(format('%1$I = excluded.%1$I', a.attname), ', ' order by a.attnum)
           filter (where a.attname <> all (p_key_columns))
    into v_columns, v_values, v_changes
  from pg_attribute a
  where a.attrelid = ('flashsale_data.' || p_table_name)::regclass and a.attnum > 0 and not a.attisdropped
    and a.attname <> 'arrival'; -- guard: new-arrival
  execute format('insert into flashsale_data.%1$I (%2$s) overriding system value'
                 || ' select %3$s from unnest($1::flashsale_data.%1$I[]) as r',
                 p_table_name, v_columns, v_values)
          || case when p_table_name = 'payments' then ' order by r.arrival' else '' end -- guard: arrival-after-move
          || case when p_key_columns is not null
                  then format(' on conflict (%s) do update set %s', array_to_string(p_key_columns, ', '), v_changes)
                  else '' end
  using p_rows;
  get diagnostics v_rows = row_count;
  return v_rows;
end
$$;
comment on function flashsale_data.load_part(text, text[], text) is 'Writes one part of a slot to its table';
