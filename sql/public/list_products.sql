-- Listed products by ascending id, with their exact stock and their terms at this instant, now. Test
-- products are not listed.
-- p_after: the last id of the page before, 0 for the first; p_limit: 1 to 1,000.
-- Refuses SA009 invalid_request, SA030 not_primary.
create or replace function flashsale.list_products(p_after bigint default 0, p_limit int default 100)
returns table (id bigint, name text, price numeric, currency text, total_stock int, available_stock int,
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
  if p_after is null or p_limit is null or p_limit not between 1 and 1000 then
    perform flashsale_data.raise_refusal('SA009', 'A page has 1 to 1,000 products.');
  end if;
  if pg_is_in_recovery() then -- guard: read-on-primary
    perform flashsale_data.raise_refusal('SA030', flashsale_data.primary_error());
  end if;
  return query
  select s.product_id, s.name, s.price, s.currency, s.total_stock, s.available,
         s.sale_status, s.starts_at, s.ends_at, s.max_per_buyer, s.now
  from flashsale_data.stock_at(v_now) s
  where s.product_id > p_after
    and s.listed -- guard: unlisted
    and not s.is_test -- guard: tests-not-listed
  order by s.product_id
  limit p_limit;
end
$$;
comment on function flashsale.list_products(bigint, int) is 'Products by ascending id, with their exact stock';
revoke execute on function flashsale.list_products(bigint, int) from public;
grant execute on function flashsale.list_products(bigint, int) to flashsale_api;
