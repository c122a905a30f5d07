-- Draws the id of a new product: in p_slot, or (null) in the next slot that this shard owns, in turn. Ids of
-- other slots are passed over: their shards draw them.
create or replace function flashsale_data.new_product_id(p_shard flashsale_data.shard, p_slot int)
returns bigint
language plpgsql
as $$
declare
  v_id bigint;
begin
  loop
    v_id := nextval('flashsale_data.products_product_id_seq');
    exit when v_id % p_shard.slots = p_slot
      or p_slot is null and (v_id % p_shard.slots)::int = any (p_shard.owned);
  end loop;
  return v_id;
end
$$;
comment on function flashsale_data.new_product_id(flashsale_data.shard, int) is 'Draws the id of a new product';
