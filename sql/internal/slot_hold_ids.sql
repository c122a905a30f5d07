-- Ids of holds with the slots of their products, of p_slots: a power of two, so that the lowest bits tell the slot.
-- Ids that have theirs stay as they are. The arrays line up; ids may be missing.
create or replace function flashsale_data.slot_hold_ids(p_hold_ids bigint[], p_product_ids bigint[], p_slots bigint)
returns bigint[]
language sql immutable
as $$
  select array(
    select greatest(p_hold_ids[i], p_slots) & -p_slots | p_product_ids[i] % p_slots -- guard: slot-of-hold
    from generate_subscripts(p_product_ids, 1) as i
    order by i);
$$;
comment on function flashsale_data.slot_hold_ids(bigint[], bigint[], bigint) is 'Ids of holds with the slots of their products';
