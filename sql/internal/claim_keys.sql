-- For each request, what names the claims of its buyer in the product's limit group, for a lock;
-- null without a buyer or a group: the claims on a single product change under its own lock.
-- p_product_ids are distinct ids, and p_slots has for each request the position of its product.
create or replace function flashsale_data.claim_keys(p_product_ids bigint[], p_slots int[], p_buyers text[])
returns text[]
language plpgsql stable
as $$
declare
  v_groups text[] := array(
    select p.limit_group
    from unnest(p_product_ids) with ordinality as wanted (product_id, slot)
    left join flashsale_data.products p on p.product_id = wanted.product_id
    order by wanted.slot);
begin
  if cardinality(array_remove(v_groups, null)) = 0 then
    return null;
  end if;
  return array(
    select v_groups[request.slot] || E'\n' || request.buyer
    from unnest(p_slots, p_buyers) with ordinality as request (slot, buyer, i)
    order by request.i);
end
$$;
comment on function flashsale_data.claim_keys(bigint[], int[], text[]) is
  'For each request, what names the claims of its buyer in the limit group';
