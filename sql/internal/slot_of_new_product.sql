-- The slot in which create_product() puts a product, null for any that this shard owns: p_slot; else that of
-- the products of its limit group, since a limit counts within one slot; else the one that the
-- idempotency key has used before, or uses from now on, so that a repetition finds it. Expects the shard
-- to be locked.
--
-- Refuses SA009 invalid_request, SA029 wrong_shard.
create or replace function flashsale_data.slot_of_new_product(
  p_shard flashsale_data.shard, p_slot int, p_limit_group text, p_idempotency_key text)
returns int
language plpgsql
as $$
declare
  v_slot int := p_slot;
begin
  if p_slot not between 0 and p_shard.slots - 1 then
    perform flashsale_data.raise_refusal('SA009', format('Slots are numbered from 0 to %s.', p_shard.slots - 1));
  elsif p_slot <> all (p_shard.owned) or p_shard.owned = '{}' then -- guard: slot-of-new-product
    perform flashsale_data.raise_refusal('SA029', case when p_slot is null
      then 'This shard owns no slot.' else format('Slot %s is owned by another shard.', p_slot) end);
  elsif p_shard.slots = 1 or p_slot is not null then
    return p_slot;
  end if;
  if p_limit_group <> '' then
    -- Two new products of a new group: the second one finds the first.
    perform flashsale_data.lock_keys('limit_group', array[p_limit_group]);
    v_slot := (
      select min(p.product_id % p_shard.slots)::int
      from flashsale_data.products p
      where p.limit_group = p_limit_group
        and exists (select from flashsale_data.stock s where s.product_id = p.product_id));
  end if;
  if v_slot is null and p_idempotency_key is not null then
    v_slot := coalesce(
      (select min(slot)
       from unnest(p_shard.owned) as slot
       join flashsale_data.operations o
         on o.operation = 'create_product' and o.idempotency_key = flashsale_data.slot_key(p_idempotency_key, slot)),
      p_shard.owned[1 + (hashtext(p_idempotency_key) & 2147483647) % cardinality(p_shard.owned)]);
  end if;
  return v_slot;
end
$$;
comment on function flashsale_data.slot_of_new_product(flashsale_data.shard, int, text, text) is
  'The slot in which create_product() puts a product';
