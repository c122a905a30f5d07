-- Where the units of each product are at this instant: available_stock + held + awaiting +
-- paid = total_stock; and the terms of its sale. For displays of a running sale. p_product_ids: at
-- most 1,000; an unknown id has no row. at: the instant at which this is true; it never goes backwards.
-- Refuses SA009 invalid_request, SA029 wrong_shard, SA030 not_primary.
create or replace function flashsale.get_stock(p_product_ids bigint[])
returns table (id bigint, at timestamptz, total_stock int, available_stock int, held int,
               awaiting int, paid int, sale_status text, starts_at timestamptz, ends_at timestamptz,
               max_per_buyer int)
language plpgsql security definer
set search_path = pg_catalog, pg_temp
-- planner settings: docs/design.md
set plan_cache_mode = force_generic_plan set jit = off
set enable_seqscan = off set enable_bitmapscan = off set enable_material = off
set enable_hashjoin = off set enable_mergejoin = off
as $$
#variable_conflict use_column
declare
  v_now  timestamptz := flashsale_data.read_clock();
  v_rows int;
begin
  if p_product_ids is null or cardinality(p_product_ids) > 1000 then
    perform flashsale_data.raise_refusal('SA009', 'A call asks for the stock of at most 1,000 products.');
  end if;
  if pg_is_in_recovery() then -- guard: read-on-primary
    perform flashsale_data.raise_refusal('SA030', flashsale_data.primary_error());
  end if;
  return query
  select s.product_id, s.now, s.total_stock, s.available, s.held, s.awaiting, s.paid,
         s.sale_status, s.starts_at, s.ends_at, s.max_per_buyer
  from flashsale_data.stock_at(v_now) s
  where s.product_id = any (p_product_ids)
  order by s.product_id;
  get diagnostics v_rows = row_count;
  if v_rows < cardinality(p_product_ids) then
    perform flashsale_data.check_owned(p_product_ids); -- guard: unknown-stock-owned
  end if;
end
$$;
comment on function flashsale.get_stock(bigint[]) is 'Where the units of each product are at this instant, and its terms';
revoke execute on function flashsale.get_stock(bigint[]) from public;
grant execute on function flashsale.get_stock(bigint[]) to flashsale_api;
