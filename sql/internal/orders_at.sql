-- Orders as they stand at p_now: a pending one that was due by then reads as cancelled, swept
-- or not. p_now as in holds_at().
create or replace function flashsale_data.orders_at(p_now timestamptz)
returns setof flashsale_data.orders
language sql stable
as $$
  select o.order_id, o.hold_id, o.product_id, o.qty, o.amount, o.currency,
         case when clock.overdue then 'cancelled' else o.status end,
         case when clock.overdue then 'payment_overdue' else o.cancel_reason end,
         o.created_at, o.payment_due_at, o.idempotency_key, o.buyer
  from flashsale_data.orders o
  cross join lateral (
    -- guard: overdue-at-instant
    select o.status = 'pending_payment' and o.payment_due_at <= greatest(p_now, s.lapsed_through) as overdue
    from flashsale_data.stock s
    where s.product_id = o.product_id
    order by s.version desc limit 1) clock;
$$;
comment on function flashsale_data.orders_at(timestamptz) is 'Orders as they stand at an instant';
