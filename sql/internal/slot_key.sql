-- An idempotency key as it is kept where the shop has several slots.
create or replace function flashsale_data.slot_key(p_key text, p_slot int)
returns text
language sql immutable
as $$
  select case
    when length(p_slot || '/' || p_key) <= 255 then p_slot || '/' || p_key
    else p_slot || '/' || left(p_key, 180) || '~' || encode(sha256(convert_to(p_key, 'UTF8')), 'hex') end;
$$;
comment on function flashsale_data.slot_key(text, int) is 'An idempotency key as it is kept, within its slot';
