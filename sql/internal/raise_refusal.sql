-- Raises a refusal, with the title that flashsale.refusals has for its SQLSTATE. Callers
-- branch on the SQLSTATE; message and detail are for reading. 55P03 is rare here, since a call
-- of one request waits for locks: a row appeared while it ran.
create or replace function flashsale_data.raise_refusal(p_sqlstate text, p_detail text)
returns void
language plpgsql stable
as $$
begin
  raise exception using
    errcode = p_sqlstate,
    message = coalesce((select r.title from flashsale.refusals r where r.sqlstate = p_sqlstate), 'Resource locked'),
    detail = coalesce(p_detail, 'Nothing was done. Repeat the call.');
end
$$;
comment on function flashsale_data.raise_refusal(text, text) is 'Raises the refusal with this SQLSTATE';
