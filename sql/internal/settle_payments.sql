-- Payment state machine: how a webhook changes an order. The only place that decides it.
--
--   order                          success                      failed, cancelled
--   pending, in time               paid: applied                cancelled: applied
--   paid                           refund_due                   no_change
--   cancelled, payment_failed      units taken again: applied   no_change
--     or payment_overdue           none left: refund_due
--   cancelled, payment_cancelled   refund_due                   no_change
--   an amount or currency that is not the order's: amount_mismatch, order unchanged
--
-- An overdue order is cancelled for payment_overdue from its instant on, swept or not.
--
-- Decides in memory, payment by payment in array order, then writes in sets. Takes
-- rows of payments: either new webhooks (result null), or stored ones. Expects the
-- orders to be locked; locks their products. Results and the orders' statuses come
-- back by payment; a new webhook whose product is busy is left alone, and null.
create or replace function flashsale_data.settle_payments(
  p_payments flashsale_data.payments[], out results text[], out order_statuses text[])
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
  v_payment        flashsale_data.payments;
  -- by order
  v_order_ids      bigint[];
  v_orders         flashsale_data.orders[];
  v_order          flashsale_data.orders;
  v_changed        boolean[];
  v_left           bigint[] := array[]::bigint[];
  -- by product
  v_products       bigint[];
  v_places         tid[];
  v_available      int[];
  v_nows           timestamptz[];
  v_awaiting       int[];
  v_paid           int[];
  v_events         flashsale_data.events[] := array[]::flashsale_data.events[];
  v_key            text;
  v_overdue        boolean;
  v_result         text;
  v_o              int;
  v_p              int;
  v_are_stored     boolean := p_payments[1].result is not null;
  v_written        bigint;
begin
  results := array_fill(null::text, array[cardinality(p_payments)]);
  order_statuses := results;
  select l.products, l.places, l.available, l.nows into v_products, v_places, v_available, v_nows
  from flashsale_data.lock_stock(array(
    select o.product_id from flashsale_data.orders o
    where o.order_id = any (array(select p.order_id from unnest(p_payments) p)))) l;
  v_awaiting := array_fill(0, array[coalesce(cardinality(v_products), 0)]);
  v_paid := v_awaiting;
  select array_agg(o.order_id), array_agg(o), array_agg(false)
    into v_order_ids, v_orders, v_changed
  from flashsale_data.orders o
  where o.order_id = any (array(select p.order_id from unnest(p_payments) p))
    and o.product_id = any (v_products);

  for v_i in 1 .. cardinality(p_payments) loop
    v_payment := p_payments[v_i];
    v_key := v_payment.idempotency_key;
    v_o := array_position(v_order_ids, v_payment.order_id);
    if v_o is null then
      continue;
    end if;
    v_order := v_orders[v_o];
    v_p := array_position(v_products, v_order.product_id); -- guard: product-of-order
    -- guard: order-overdue
    v_overdue := v_order.status = 'pending_payment' and v_order.payment_due_at <= v_nows[v_p];

    if v_payment.amount <> v_order.amount -- guard: amount-matches
       or v_payment.currency <> v_order.currency then -- guard: currency-matches
      v_result := 'amount_mismatch';

    elsif v_payment.status = 'success' then
      if v_order.status = 'pending_payment' and not v_overdue then
        v_result := 'applied';
        v_order.status := 'paid';
        v_awaiting[v_p] := v_awaiting[v_p] - v_order.qty;
        v_paid[v_p] := v_paid[v_p] + v_order.qty;
        v_left := v_left || v_order.order_id;
        v_events := v_events || row(null, 'order_paid', null, v_order.product_id, v_order.hold_id, v_order.order_id,
          v_key, 0, null)::flashsale_data.events;
      elsif v_order.status = 'paid' -- guard: paid-once
            or v_order.cancel_reason = 'payment_cancelled' then -- guard: cancelled-not-revived
        v_result := 'refund_due';
      else
        if v_overdue then
          v_order.status := 'cancelled';
          v_order.cancel_reason := 'payment_overdue';
          v_left := v_left || v_order.order_id;
          v_events := v_events || row(null, 'order_cancelled', null, v_order.product_id, v_order.hold_id, v_order.order_id,
            null, v_order.qty, jsonb_build_object('cancel_reason', v_order.cancel_reason))::flashsale_data.events;
        end if;
        -- Its units went back on sale; somebody else may have them now.
        if v_order.qty <= v_available[v_p] then -- guard: units-left-to-revive
          v_result := 'applied';
          v_order.status := 'paid';
          v_order.cancel_reason := null;
          v_available[v_p] := v_available[v_p] - v_order.qty;
          v_paid[v_p] := v_paid[v_p] + v_order.qty;
          v_events := v_events || row(null, 'order_paid', null, v_order.product_id, v_order.hold_id, v_order.order_id,
            v_key, -v_order.qty, null)::flashsale_data.events;
        else
          v_result := 'refund_due';
        end if;
      end if;

    elsif v_order.status = 'pending_payment' and not v_overdue then -- guard: failed-payment-in-time
      v_result := 'applied';
      v_order.status := 'cancelled';
      v_order.cancel_reason := 'payment_' || v_payment.status;
      v_awaiting[v_p] := v_awaiting[v_p] - v_order.qty;
      v_available[v_p] := v_available[v_p] + v_order.qty;
      v_left := v_left || v_order.order_id;
      v_events := v_events || row(null, 'order_cancelled', null, v_order.product_id, v_order.hold_id, v_order.order_id,
        v_key, v_order.qty, jsonb_build_object('cancel_reason', v_order.cancel_reason))::flashsale_data.events;
    else
      v_result := 'no_change';
    end if;

    if v_result in ('refund_due', 'amount_mismatch') then -- guard: refund-in-ledger
      v_events := v_events || row(null, v_result, null, v_order.product_id, v_order.hold_id, v_order.order_id,
        v_key, 0, null)::flashsale_data.events;
    end if;
    results[v_i] := v_result;
    order_statuses[v_i] := case when v_overdue and v_result in ('amount_mismatch', 'no_change') then 'cancelled'
                                else v_order.status end;
    if (v_order.status, v_order.cancel_reason) is distinct from
       (v_orders[v_o].status, v_orders[v_o].cancel_reason) then
      v_orders[v_o] := v_order;
      v_changed[v_o] := true;
    end if;
  end loop;

  if v_are_stored then
    update flashsale_data.payments p
    set result = r.result, order_status = r.order_status
    from unnest(array(select s.idempotency_key from unnest(p_payments) s), results, order_statuses)
      as r (key, result, order_status)
    -- For || '' see announce_early_payments().
    where p.idempotency_key = r.key and p.result || '' = 'stored' and r.result is not null;
  else
    -- A caller above READ COMMITTED that cannot see the key's row gets 40001 here.
    insert into flashsale_data.payments
      (idempotency_key, order_id, status, amount, currency, payload, received_at, wait_ends_at, result, order_status)
    select p.idempotency_key, p.order_id, p.status, p.amount, p.currency, p.payload, p.received_at, null,
           results[p.i], order_statuses[p.i]
    from unnest(p_payments) with ordinality
      as p (idempotency_key, arrival, order_id, status, amount, currency, payload, received_at, result,
            order_status, wait_ends_at, i)
    where results[p.i] is not null
    order by p.i
    on conflict (idempotency_key) do nothing;
  end if;
  get diagnostics v_written = row_count;
  if v_written <> cardinality(case when v_are_stored then results else array_remove(results, null) end) then
    perform flashsale_data.raise_unwritten('payments');
  end if;

  if true = any (v_changed) then
    update flashsale_data.orders o
    set status = c.status, cancel_reason = c.cancel_reason
    from unnest(v_orders) c
    where o.order_id = c.order_id
      and (o.status, o.cancel_reason) is distinct from (c.status, c.cancel_reason);

    update flashsale_data.lapses l
    set awaiting = l.awaiting - o.qty
    from (
      select o.product_id, o.payment_due_at, sum(o.qty)::int as qty
      from flashsale_data.orders o
      where o.order_id = any (v_left)
      group by 1, 2) o
    where l.product_id = o.product_id and l.lapses_at = o.payment_due_at;

    update flashsale_data.stock s
    set version = s.version + 1, awaiting = s.awaiting + c.awaiting, paid = s.paid + c.paid
    from unnest(v_places, v_awaiting, v_paid) as c (place, awaiting, paid)
    where s.ctid = c.place and (c.awaiting, c.paid) <> (0, 0);
  end if;

  if cardinality(v_events) > 0 then -- guard: payments-in-ledger
    perform flashsale_data.open_ledger();
    insert into flashsale_data.events (kind, at, product_id, hold_id, order_id, payment_key, available_delta, data)
    select e.kind, clock_timestamp(), e.product_id, e.hold_id, e.order_id, e.payment_key, e.available_delta, e.data
    from unnest(v_events) e;
  end if;
end
$$;
comment on function flashsale_data.settle_payments(flashsale_data.payments[]) is
  'Payment state machine: how webhooks change orders';
