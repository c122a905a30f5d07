-- Raises SA009 if there is no such slot, or if the transaction is above READ COMMITTED, where a move would
-- miss what was written since its snapshot; SA029 if this shard does not own the slot, where p_owned says
-- that it should, and SA009 if it does where it should not.
create or replace function flashsale_data.check_slot(p_slot int, p_owned boolean)
returns void
language plpgsql
as $$
declare
  v_shard flashsale_data.shard;
begin
  select * into v_shard from flashsale_data.shard;
  if flashsale_data.keeps_snapshot() then -- guard: move-isolation
    perform flashsale_data.raise_refusal('SA009', 'A slot is moved at READ COMMITTED.');
  elsif v_shard.slots = 1 then
    perform flashsale_data.raise_refusal('SA009', 'The shop has one slot, which stays.');
  elsif p_slot is null or p_slot not between 0 and v_shard.slots - 1 then
    perform flashsale_data.raise_refusal('SA009', format('Slots are numbered from 0 to %s.', v_shard.slots - 1));
  elsif p_owned and p_slot <> all (v_shard.owned) then -- guard: export-what-is-owned
    perform flashsale_data.raise_refusal('SA029', format('Slot %s is owned by another shard, or by none.', p_slot));
  elsif not p_owned and p_slot = any (v_shard.owned) then -- guard: no-second-arrival
    perform flashsale_data.raise_refusal('SA009', format('Slot %s is owned here.', p_slot));
  end if;
end
$$;
comment on function flashsale_data.check_slot(int, boolean) is 'Whether a slot exists, and is owned or is not';
