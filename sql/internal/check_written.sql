-- Raises an error, and so undoes the call, unless as many rows were written as
-- results are given. An insert that skips conflicts, and an update by place, can
-- write nothing; a caller must not be told of what is not recorded.
create or replace function flashsale_data.check_written(p_table text, p_written bigint, p_expected bigint)
returns void
language plpgsql immutable
set search_path = pg_catalog, pg_temp
as $$
begin
  if p_written is distinct from p_expected then
    raise exception using errcode = 'internal_error',
      message = format('%s of %s rows of %s were written', p_written, p_expected, p_table),
      detail = 'Nothing was done. Another transaction has changed what this one had read.',
      hint = 'Repeat the call; if it fails again, this is a defect of flashsale.';
  end if;
end
$$;
comment on function flashsale_data.check_written(text, bigint, bigint) is
  'Raises unless as many rows were written as results are given';
