-- Where the units of every product are at the instant of the call: available_stock + held +
-- awaiting + paid = total_stock. Test products are left out unless p_tests. For the view
-- flashsale.stock: a function reads the clock before it takes its snapshot, so that the view is
-- exact in a statement that has run for a while, too. Takes no lock.
create or replace function flashsale.list_stock(p_tests boolean default false)
returns table (product_id bigint, name text, total_stock int, available_stock int, held int,
               awaiting int, paid int, price numeric, currency text, is_test boolean)
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
  select s.product_id, s.name, s.total_stock, s.available, s.held, s.awaiting, s.paid, s.price, s.currency,
         s.is_test
  from flashsale_data.stock_at(v_now) s
  where p_tests or not s.is_test; -- guard: tests-not-in-stock
end
$$;
comment on function flashsale.list_stock(boolean) is 'Where the units of every product are at this instant';
revoke execute on function flashsale.list_stock(boolean) from public;
grant execute on function flashsale.list_stock(boolean) to flashsale_ops;
