-- A row of the ledger about an order, without id and time. An order_cancelled
-- carries the order's cancel_reason.
create or replace function flashsale_data.order_event(
  p_kind text, p_order flashsale_data.orders, p_payment_key text, p_available_delta int)
returns flashsale_data.events
language sql immutable
as $$
  select row(null, p_kind, null, p_order.product_id, p_order.hold_id, p_order.order_id, p_payment_key,
             p_available_delta,
             case when p_kind = 'order_cancelled' then jsonb_build_object('cancel_reason', p_order.cancel_reason) end
         )::flashsale_data.events;
$$;
comment on function flashsale_data.order_event(text, flashsale_data.orders, text, int) is
  'A row of the ledger about an order, without id and time';
