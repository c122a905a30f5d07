-- Number of requests in a set-based call. Refuses the whole call (SA009) if its arrays do not
-- line up, since it would be ambiguous which argument belongs to which request. p_dims are the
-- array_dims() of the arguments, which differ where cardinality() does not: '{{1},{2}}',
-- '[0:1]={1,2}'.
create or replace function flashsale_data.batch_size(p_size int, variadic p_dims text[])
returns int
language plpgsql immutable
as $$
declare
  c_most constant int := 1000;
  v_dims text;
begin
  foreach v_dims in array p_dims loop
    if v_dims is distinct from (case when p_size > 0 then '[1:' || p_size || ']' end) then
      raise exception using errcode = 'SA009', message = 'Invalid request',
        detail = 'The arrays of a call must be one-dimensional, start at 1 and be of one length.';
    end if;
  end loop;
  if p_size > c_most then
    raise exception using errcode = 'SA009', message = 'Invalid request',
      detail = format('A call carries at most %s requests, not %s.', c_most, p_size);
  end if;
  return coalesce(p_size, 0);
end
$$;
comment on function flashsale_data.batch_size(int, text[]) is
  'Number of requests in a set-based call; SA009 when its arrays do not line up';
