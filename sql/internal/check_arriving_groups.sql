-- Raises SA009 if a limit group has products of this slot, which is about to arrive, and of a slot that is here: it
-- would count both. Change one of the groups first.
create or replace function flashsale_data.check_arriving_groups(p_slot int)
returns void
language plpgsql
as $$
declare
  v_slots int := (select s.slots from flashsale_data.shard s);
  v_group text := (
    select min(p.limit_group)
    from flashsale_data.products p
    join flashsale_data.products q on q.limit_group = p.limit_group
    join flashsale_data.stock s on s.product_id = q.product_id
    where p.product_id % v_slots = p_slot and q.product_id % v_slots <> p_slot); -- guard: arriving-group
begin
  if v_group is not null then
    perform flashsale_data.raise_refusal('SA009', format(
      'Slot %s has products of the limit group %s, and so has another slot here.', p_slot, v_group));
  end if;
end
$$;
comment on function flashsale_data.check_arriving_groups(int) is 'Raises SA009 if a limit group would have two slots here';
