-- Fails the call, and so undoes it: fewer rows were written than results are returned. An
-- insert that skips conflicts and an update by ctid can write nothing; a call must not report
-- what it has not recorded.
create or replace function flashsale_data.raise_unwritten(p_table text)
returns void
language plpgsql volatile
as $$
begin
  raise exception using errcode = 'internal_error', -- guard: unwritten-rows
    message = format('Not every row of %s was written', p_table),
    detail = 'Nothing was done. Another transaction has changed what this one had read.',
    hint = 'Repeat the call; if it fails again, this is a defect of flashsale.';
end
$$;
comment on function flashsale_data.raise_unwritten(text) is 'Fails a call that has not written all that it reports';
