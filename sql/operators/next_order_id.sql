-- The id that the next order gets unless another transaction creates one first: for trying a
-- webhook that comes before its order. Reserves nothing.
create or replace function flashsale.next_order_id(out order_id bigint)
language sql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
  select coalesce(pg_sequence_last_value('flashsale_data.order_ids'), 0) + 1;
$$;
comment on function flashsale.next_order_id() is 'The id the next order gets unless another transaction creates one first';
revoke execute on function flashsale.next_order_id() from public;
grant execute on function flashsale.next_order_id() to flashsale_ops;
