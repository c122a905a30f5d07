-- Holds that reserve units at the instant of the call, without those of test products unless
-- p_tests. For the view flashsale.active_holds, as list_stock() is for flashsale.stock. Takes no
-- lock.
create or replace function flashsale.list_active_holds(p_tests boolean default false)
returns table (hold_id bigint, product_id bigint, qty int, placed_at timestamptz, expires_at timestamptz,
               time_left interval)
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
  v_now timestamptz := flashsale_data.read_clock();
begin
  return query
  select h.hold_id, h.product_id, h.qty, h.placed_at, h.expires_at, h.expires_at - v_now
  from flashsale_data.holds_at(v_now) h
  where h.status = 'active' and h.expires_at > v_now
    and (p_tests or h.product_id not in (
      select t.product_id from flashsale_data.products t where t.is_test)); -- guard: tests-not-in-holds
end
$$;
comment on function flashsale.list_active_holds(boolean) is 'Holds that reserve units at this instant';
revoke execute on function flashsale.list_active_holds(boolean) from public;
grant execute on function flashsale.list_active_holds(boolean) to flashsale_ops;
