-- Orders that await payment and are not overdue at the instant of the call, without those of
-- test products unless p_tests. For the view flashsale.open_orders, as list_stock() is for
-- flashsale.stock. Takes no lock.
create or replace function flashsale.list_open_orders(p_tests boolean default false)
returns table (order_id bigint, hold_id bigint, product_id bigint, qty int, amount numeric, currency text,
               created_at timestamptz, payment_due_at timestamptz, time_left interval)
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
  v_now timestamptz := flashsale_data.read_clock();
begin
  return query
  select o.order_id, o.hold_id, o.product_id, o.qty, o.amount, o.currency, o.created_at, o.payment_due_at,
         o.payment_due_at - v_now
  from flashsale_data.orders_at(v_now) o
  where o.status = 'pending_payment' and o.payment_due_at > v_now
    and (p_tests or o.product_id not in (
      select t.product_id from flashsale_data.products t where t.is_test)); -- guard: tests-not-in-orders
end
$$;
comment on function flashsale.list_open_orders(boolean) is 'Orders that await payment at this instant';
revoke execute on function flashsale.list_open_orders(boolean) from public;
grant execute on function flashsale.list_open_orders(boolean) to flashsale_ops;
