-- Divides the shop into p_slots slots, of which this database owns p_owned (null: all): when it is first
-- migrated, before it has a product. The number is fixed from then on, and slots move between
-- shards by export_slot(). Repeated with the same number it changes nothing, whatever is owned by
-- now, unless p_owned says otherwise.
--
-- Locks    the shard, to commit.
-- Refuses  SA009 invalid_request.
create or replace function flashsale.set_shard(
  p_slots int, p_owned int[] default null, out slots int, out owned int[])
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_owned int[];
begin
  if p_slots is null or p_slots not between 1 and 256 or p_slots & (p_slots - 1) <> 0 then
    perform flashsale_data.raise_refusal('SA009', 'The number of slots is a power of two, from 1 to 256.');
  elsif exists (select from unnest(p_owned) as slot where slot is null or slot not between 0 and p_slots - 1) then
    perform flashsale_data.raise_refusal('SA009', format('Slots are numbered from 0 to %s.', p_slots - 1));
  elsif p_slots = 1 and cardinality(p_owned) = 0 then
    perform flashsale_data.raise_refusal('SA009', 'The only slot is owned.');
  end if;
  v_owned := case when p_owned is null then array(select generate_series(0, p_slots - 1))
                  else array(select distinct slot from unnest(p_owned) as slot order by 1) end;

  select s.slots, s.owned into slots, owned from flashsale_data.shard s for update;
  if slots = p_slots and (p_owned is null or owned = v_owned) then
    return;
  elsif slots > 1 then -- guard: slots-fixed
    perform flashsale_data.raise_refusal('SA009', case when slots = p_slots
      then 'This shard owns other slots by now; they move by flashsale shard move.'
      else format('The shop has %s slots, which is fixed.', slots) end);
  elsif pg_sequence_last_value('flashsale_data.products_product_id_seq') is not null
        or exists (select from flashsale_data.payments) then -- guard: slots-before-products
    perform flashsale_data.raise_refusal('SA009', 'The number of slots is fixed once a product exists.');
  end if;
  update flashsale_data.shard s set slots = p_slots, owned = v_owned
  returning s.slots, s.owned into slots, owned;
end
$$;
comment on function flashsale.set_shard(int, int[]) is 'Divides the shop into slots, before it has a product';
revoke execute on function flashsale.set_shard(int, int[]) from public;
grant execute on function flashsale.set_shard(int, int[]) to flashsale_ops;
