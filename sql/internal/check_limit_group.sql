-- Raises SA009 if the limit group of a product has products of another slot: a limit counts within one
-- slot. Locks the group, so that two products cannot join it at once from two slots.
create or replace function flashsale_data.check_limit_group(p_product flashsale_data.products)
returns void
language plpgsql
as $$
declare
  v_slots int := (select s.slots from flashsale_data.shard s);
  v_slot  int;
begin
  if v_slots = 1 or p_product.limit_group is null then
    return;
  end if;
  perform flashsale_data.lock_keys('limit_group', array[p_product.limit_group]);
  v_slot := (
    select min(p.product_id % v_slots)::int
    from flashsale_data.products p
    where p.limit_group = p_product.limit_group
      and p.product_id % v_slots <> p_product.product_id % v_slots -- guard: group-in-one-slot
      and exists (select from flashsale_data.stock s where s.product_id = p.product_id));
  if v_slot is not null then
    perform flashsale_data.raise_refusal('SA009', format('The limit group has products in slot %s, product %s is in slot %s.',
      v_slot, p_product.product_id, p_product.product_id % v_slots));
  end if;
end
$$;
comment on function flashsale_data.check_limit_group(flashsale_data.products) is
  'Raises SA009 if a limit group has products of another slot';
