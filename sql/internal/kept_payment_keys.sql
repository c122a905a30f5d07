-- Keys of payments as they are kept (slot_keys()), whether they come with their slot before them or without:
-- one without is looked for in the slots that this shard owns. What is not found stays as it is. With one slot
-- the keys as they are.
--
-- Refuses SA009 invalid_request for a key that two slots have.
create or replace function flashsale_data.kept_payment_keys(p_keys text[])
returns text[]
language plpgsql stable
as $$
declare
  v_shard flashsale_data.shard;
  v_kept  text[] := p_keys;
  v_key   text;
  v_count bigint;
begin
  select * into v_shard from flashsale_data.shard;
  if v_shard.slots = 1 then
    return p_keys;
  end if;
  for v_i in 1 .. coalesce(cardinality(p_keys), 0) loop
    select count(*), min(p.idempotency_key) into v_count, v_key
    from flashsale_data.payments p
    where p.idempotency_key = any (
      p_keys[v_i] || array(select flashsale_data.slot_key(p_keys[v_i], slot) from unnest(v_shard.owned) as slot));
    if v_count > 1 then
      perform flashsale_data.raise_refusal('SA009', format(
        'Several slots have a payment %s: put the slot before it, as in %s.', left(p_keys[v_i], 255), v_key));
    end if;
    v_kept[v_i] := coalesce(v_key, p_keys[v_i]);
  end loop;
  return v_kept;
end
$$;
comment on function flashsale_data.kept_payment_keys(text[]) is 'Keys of payments as they are kept, within their slots';
