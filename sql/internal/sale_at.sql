-- What cancelling the sale of a product would undo at p_now: active holds, pending and paid orders,
-- and what has been captured for the latter and not refunded.
create or replace function flashsale_data.sale_at(p_product_id bigint, p_now timestamptz)
returns table (holds int, pending int, paid int, refund_total numeric)
language sql stable
as $$
  select (select count(*)::int from flashsale_data.holds h
          where h.product_id = p_product_id and h.status = 'active' and h.expires_at > p_now),
         count(*) filter (where o.status = 'pending_payment' and o.payment_due_at > p_now)::int,
         count(*) filter (where o.status = 'paid')::int,
         coalesce(sum(o.amount - p.refunded) filter (where o.status = 'paid' and o.amount > p.refunded), 0)
  from flashsale_data.orders o
  left join flashsale_data.payments p
    on p.order_id = o.order_id and p.status = 'success' and p.result = 'applied' and o.status = 'paid'
  where o.product_id = p_product_id and o.status <> 'cancelled';
$$;
comment on function flashsale_data.sale_at(bigint, timestamptz) is
  'What cancelling the sale of a product would undo at an instant';
