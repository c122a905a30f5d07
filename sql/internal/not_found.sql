-- The refusal of a request whose id was not found: p_sqlstate, unless the id is of a slot that this shard does
-- not own, which raises SA029 for the whole call.
create or replace function flashsale_data.not_found(p_sqlstate text, p_id bigint)
returns text
language plpgsql stable
as $$
begin
  perform flashsale_data.check_owned(array[p_id]);
  return p_sqlstate;
end
$$;
comment on function flashsale_data.not_found(text, bigint) is 'The refusal of an id that was not found; raises SA029';
