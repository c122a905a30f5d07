-- Raises a refusal, with the title that flashsale.refusals gives its SQLSTATE.
-- Callers branch on the SQLSTATE; message and detail are for people.
-- 55P03 (busy) never comes here: a call of one request waits instead.
create or replace function flashsale_data.refuse(p_sqlstate text, p_detail text)
returns void
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
  raise exception using
    errcode = p_sqlstate,
    message = (select r.title from flashsale.refusals r where r.sqlstate = p_sqlstate),
    detail = p_detail;
end
$$;
comment on function flashsale_data.refuse(text, text) is 'Raises the refusal with this SQLSTATE';
