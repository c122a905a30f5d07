-- Raises an error, and so undoes the call: fewer rows were written than results are
-- given. An insert that skips conflicts, and an update by place, can write nothing;
-- a caller must not be told of what is not recorded.
create or replace function flashsale_data.raise_unwritten(p_table text)
returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  raise exception using errcode = 'internal_error', -- guard: unwritten-rows
    message = format('Not every row of %s was written', p_table),
    detail = 'Nothing was done. Another transaction has changed what this one had read.',
    hint = 'Repeat the call; if it fails again, this is a defect of flashsale.';
end
$$;
comment on function flashsale_data.raise_unwritten(text) is 'Fails a call that has not written all that it answers';
