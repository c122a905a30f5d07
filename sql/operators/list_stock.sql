-- Where the units of every product are at the instant of the call: available_stock + held +
-- awaiting + paid = total_stock. For the view flashsale.stock: a function reads the clock
-- before it takes its snapshot, so that the view is exact in a statement that has run for a
-- while, too. Takes no lock.
create or replace function flashsale.list_stock()
returns table (product_id bigint, name text, total_stock int, available_stock int, held int,
               awaiting int, paid int, price numeric, currency text)
language plpgsql volatile security definer -- guard: stock-at-call
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
  return query
  select s.product_id, s.name, s.total_stock, s.available, s.held, s.awaiting, s.paid, s.price, s.currency
  from flashsale_data.stock_at(v_now) s;
end
$$;
comment on function flashsale.list_stock() is 'Where the units of every product are at this instant';
revoke execute on function flashsale.list_stock() from public;
grant execute on function flashsale.list_stock() to flashsale_ops;
