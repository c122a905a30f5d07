-- Each product with its exact stock and its terms at this instant, now. One row a request, in order.
-- Refuses SA001 product_not_found, SA009 invalid_request, SA030 not_primary; SA029
-- wrong_shard for the whole call.
create or replace function flashsale.get_products(p_request_nos int[], p_product_ids bigint[])
returns table (request_no int, sqlstate text, detail text, id bigint, name text, price numeric,
               currency text, total_stock int, available_stock int,
               sale_status text, starts_at timestamptz, ends_at timestamptz, max_per_buyer int, now timestamptz)
language plpgsql security definer
set search_path = pg_catalog, pg_temp
-- planner settings: docs/design.md
set plan_cache_mode = force_generic_plan set jit = off
set enable_seqscan = off set enable_bitmapscan = off set enable_material = off
set enable_hashjoin = off set enable_mergejoin = off
as $$
#variable_conflict use_column
declare
  v_now timestamptz := flashsale_data.read_clock();
begin
  perform flashsale_data.batch_size(cardinality(p_request_nos), array_dims(p_request_nos),
    array_dims(p_product_ids));
  if pg_is_in_recovery() then -- guard: read-on-primary
    perform flashsale_data.raise_refusal('SA030', flashsale_data.primary_error());
  end if;
  return query
  select r.request_no,
         case when r.product_id is null then 'SA009' when p.product_id is null
              then flashsale_data.not_found('SA001', r.product_id) end,
         case when r.product_id is null then 'A product has an id.'
              when p.product_id is null then format('There is no product %s.', r.product_id) end,
         p.product_id, p.name, p.price, p.currency, p.total_stock, p.available,
         p.sale_status, p.starts_at, p.ends_at, p.max_per_buyer, p.now
  from unnest(p_request_nos, p_product_ids) with ordinality as r (request_no, product_id, i)
  left join flashsale_data.stock_at(v_now) p on p.product_id = r.product_id
  order by r.i;
end
$$;
comment on function flashsale.get_products(int[], bigint[]) is
  'Each product with its exact stock; one outcome row each';
revoke execute on function flashsale.get_products(int[], bigint[]) from public;
grant execute on function flashsale.get_products(int[], bigint[]) to flashsale_api;
