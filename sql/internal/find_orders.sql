-- Orders as they stand at this instant. A pending order that is overdue reads as
-- cancelled whether or not anybody has tidied it. Unknown ids have no row.
create or replace function flashsale_data.find_orders(p_order_ids bigint[])
returns table (order_id bigint, hold_id bigint, product_id bigint, qty int, status text,
               cancel_reason text, amount numeric, currency text,
               created_at timestamptz, payment_due_at timestamptz)
language sql stable rows 1
set search_path = pg_catalog, pg_temp
as $$
  select o.order_id, o.hold_id, o.product_id, o.qty,
         case when overdue then 'cancelled' else o.status end,
         case when overdue then 'payment_overdue' else o.cancel_reason end,
         o.amount, o.currency, o.created_at, o.payment_due_at
  from flashsale_data.orders o
  cross join lateral (
    select o.status = 'pending_payment'
           and o.payment_due_at <= greatest(clock_timestamp(), s.lapsed_through) as overdue
    from flashsale_data.stock s
    where s.product_id = o.product_id
    order by s.version desc limit 1) s
  where o.order_id = any (p_order_ids);
$$;
comment on function flashsale_data.find_orders(bigint[]) is 'Orders as they stand now';
