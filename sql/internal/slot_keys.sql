-- Idempotency keys as they are kept: a key counts within its slot, so that a slot can move to a shard where
-- the key is in use. p_ids has for each the id that tells the slot. With one slot the keys as they are, else
-- the slot before each, as in 5/abc; what is no valid key stays as it is. One that would be longer
-- than 255 characters ends with a digest.
create or replace function flashsale_data.slot_keys(p_keys text[], p_ids bigint[])
returns text[]
language plpgsql stable
as $$
declare
  v_slots int := (select s.slots from flashsale_data.shard s);
begin
  if v_slots = 1 then
    return p_keys;
  end if;
  return array(
    select case
      when length(request.key) between 1 and 255 and request.id is not null -- guard: slot-key
        then flashsale_data.slot_key(request.key, (request.id % v_slots)::int)
      else request.key end
    from unnest(p_keys, p_ids) with ordinality as request (key, id, i)
    order by request.i);
end
$$;
comment on function flashsale_data.slot_keys(text[], bigint[]) is 'Idempotency keys as they are kept, within their slots';
