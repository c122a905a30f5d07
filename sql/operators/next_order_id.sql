-- The id that the next order gets unless another transaction creates one first: for trying a
-- webhook that comes before its order. Reserves nothing. Where the shop has several slots, the next order of
-- p_product_id; without it null.
create or replace function flashsale.next_order_id(p_product_id bigint default null, out order_id bigint)
language sql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
  select (coalesce(pg_sequence_last_value('flashsale_data.order_ids'), 0) + 1) * s.slots
         + case when s.slots > 1 then p_product_id % s.slots else 0 end
  from flashsale_data.shard s;
$$;
comment on function flashsale.next_order_id(bigint) is 'The id the next order gets unless another transaction creates one first';
revoke execute on function flashsale.next_order_id(bigint) from public;
grant execute on function flashsale.next_order_id(bigint) to flashsale_ops;
