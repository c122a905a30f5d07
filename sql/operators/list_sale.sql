-- Every product with its exact stock at the instant of the call, and how many holds, orders and paid
-- orders it has seen a second, over the last 10 seconds. Test products are left out unless p_tests.
-- For the view flashsale.sale, as list_stock() is for flashsale.stock. Takes no lock.
create or replace function flashsale.list_sale(p_tests boolean default false)
returns table (product_id bigint, name text, total_stock int, available_stock int, held int, awaiting int,
               paid int, holds_per_second numeric, orders_per_second numeric, paid_per_second numeric)
language sql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
  select s.product_id, s.name, s.total_stock, s.available_stock, s.held, s.awaiting, s.paid,
         coalesce(r.holds, 0), coalesce(r.orders, 0), coalesce(r.paid, 0)
  from flashsale.list_stock(p_tests) s
  left join (
    select c.product_id,
           round(sum(c.events) filter (where c.kind = 'hold_placed') / 10, 1) as holds,
           round(sum(c.events) filter (where c.kind = 'order_created') / 10, 1) as orders,
           round(sum(c.events) filter (where c.kind = 'order_paid') / 10, 1) as paid
    from flashsale.count_events(p_tests) c
    group by c.product_id) r on r.product_id = s.product_id;
$$;
comment on function flashsale.list_sale(boolean) is 'Every product with its exact stock and what happened to it a second';
revoke execute on function flashsale.list_sale(boolean) from public;
grant execute on function flashsale.list_sale(boolean) to flashsale_ops;
