-- What the provider's word does to an order: the one home of that rule.
--
--   order                        success                      failed, cancelled
--   pending, in time             paid: applied                cancelled: applied
--   pending, overdue             units taken again: applied   cancelled: applied
--                                none left: refund_due
--   paid                         refund_due                   no_change
--   cancelled, payment_failed    units taken again: applied   no_change
--     or payment_overdue         none left: refund_due
--   cancelled, payment_cancelled refund_due                   no_change
--   an amount or currency that is not the order's: amount_mismatch, order unchanged
--
-- Decides in memory, payment by payment in array order, then writes in sets.
-- Expects the orders to be locked; locks their products. Results and the orders'
-- statuses come back by payment; one whose product is busy is left alone, and null.
create or replace function flashsale_data.settle_payments(
  p_keys text[], p_order_ids bigint[], p_statuses text[], p_amounts numeric[], p_currencies text[],
  p_payloads jsonb[], p_received_ats timestamptz[], out results text[], out order_statuses text[])
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
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
  -- by event
  v_kinds          text[] := array[]::text[];
  v_event_orders   bigint[] := array[]::bigint[];
  v_event_keys     text[] := array[]::text[];
  v_deltas         int[] := array[]::int[];
  v_overdue        boolean;
  v_result         text;
  v_o              int;
  v_p              int;
begin
  results := array_fill(null::text, array[cardinality(p_keys)]);
  order_statuses := results;
  select l.products, l.places, l.available, l.nows into v_products, v_places, v_available, v_nows
  from flashsale_data.lock_stock(array(
    select o.product_id from flashsale_data.orders o where o.order_id = any (p_order_ids))) l;
  v_awaiting := array_fill(0, array[coalesce(cardinality(v_products), 0)]);
  v_paid := v_awaiting;
  select array_agg(o.order_id), array_agg(o), array_agg(false)
    into v_order_ids, v_orders, v_changed
  from flashsale_data.orders o
  where o.order_id = any (p_order_ids) and o.product_id = any (v_products);

  for v_i in 1 .. cardinality(p_keys) loop
    v_o := array_position(v_order_ids, p_order_ids[v_i]);
    if v_o is null then
      continue;
    end if;
    v_order := v_orders[v_o];
    v_p := array_position(v_products, v_order.product_id);
    v_overdue := v_order.status = 'pending_payment' and v_order.payment_due_at <= v_nows[v_p];

    if p_amounts[v_i] <> v_order.amount or p_currencies[v_i] <> v_order.currency then
      v_result := 'amount_mismatch';

    elsif p_statuses[v_i] = 'success' then
      if v_order.status = 'pending_payment' and not v_overdue then
        v_result := 'applied';
        v_order.status := 'paid';
        v_awaiting[v_p] := v_awaiting[v_p] - v_order.qty;
        v_paid[v_p] := v_paid[v_p] + v_order.qty;
        v_left := v_left || v_order.order_id;
        v_kinds := v_kinds || text 'order_paid';
        v_deltas := v_deltas || 0;
        v_event_orders := v_event_orders || v_order.order_id;
        v_event_keys := v_event_keys || p_keys[v_i];
      elsif v_order.status = 'paid' or v_order.cancel_reason = 'payment_cancelled' then
        v_result := 'refund_due';
      else
        if v_overdue then
          v_order.status := 'cancelled';
          v_order.cancel_reason := 'payment_overdue';
          v_left := v_left || v_order.order_id;
          v_kinds := v_kinds || text 'order_cancelled';
          v_deltas := v_deltas || v_order.qty;
          v_event_orders := v_event_orders || v_order.order_id;
          v_event_keys := v_event_keys || null::text;
        end if;
        -- Its units went back on sale; somebody else may have them now.
        if v_order.qty <= v_available[v_p] then
          v_result := 'applied';
          v_order.status := 'paid';
          v_order.cancel_reason := null;
          v_available[v_p] := v_available[v_p] - v_order.qty;
          v_paid[v_p] := v_paid[v_p] + v_order.qty;
          v_kinds := v_kinds || text 'order_paid';
          v_deltas := v_deltas || -v_order.qty;
          v_event_orders := v_event_orders || v_order.order_id;
          v_event_keys := v_event_keys || p_keys[v_i];
        else
          v_result := 'refund_due';
        end if;
      end if;

    elsif v_order.status = 'pending_payment' then
      v_result := 'applied';
      v_order.status := 'cancelled';
      v_order.cancel_reason := 'payment_' || p_statuses[v_i];
      if not v_overdue then
        v_awaiting[v_p] := v_awaiting[v_p] - v_order.qty;
        v_available[v_p] := v_available[v_p] + v_order.qty;
      end if;
      v_left := v_left || v_order.order_id;
      v_kinds := v_kinds || text 'order_cancelled';
      v_deltas := v_deltas || v_order.qty;
      v_event_orders := v_event_orders || v_order.order_id;
      v_event_keys := v_event_keys || p_keys[v_i];
    else
      v_result := 'no_change';
    end if;

    if v_result in ('refund_due', 'amount_mismatch') then
      v_kinds := v_kinds || v_result;
      v_deltas := v_deltas || 0;
      v_event_orders := v_event_orders || v_order.order_id;
      v_event_keys := v_event_keys || p_keys[v_i];
    end if;
    results[v_i] := v_result;
    order_statuses[v_i] := case when v_overdue and v_result = 'amount_mismatch' then 'cancelled'
                                else v_order.status end;
    if (v_order.status, v_order.cancel_reason) is distinct from
       (v_orders[v_o].status, v_orders[v_o].cancel_reason) then
      v_orders[v_o] := v_order;
      v_changed[v_o] := true;
    end if;
  end loop;

  -- Inserts a new webhook, and says what has become of a stored one.
  insert into flashsale_data.payments as p
    (idempotency_key, order_id, status, amount, currency, payload, received_at, result, order_status)
  select r.key, r.order_id, r.status, r.amount, r.currency, r.payload, r.received_at, r.result, r.order_status
  from unnest(p_keys, p_order_ids, p_statuses, p_amounts, p_currencies, p_payloads, p_received_ats,
              results, order_statuses) with ordinality
    as r (key, order_id, status, amount, currency, payload, received_at, result, order_status, i)
  where r.result is not null
  order by r.i
  on conflict (idempotency_key) do update
    set result = excluded.result, order_status = excluded.order_status
    where p.result = 'stored';

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

  if cardinality(v_kinds) > 0 then
    perform flashsale_data.open_ledger();
    insert into flashsale_data.events (kind, at, product_id, hold_id, order_id, payment_key, available_delta, data)
    select e.kind, clock_timestamp(), o.product_id, o.hold_id, o.order_id, e.payment_key, e.delta,
           case when e.kind = 'order_cancelled' then jsonb_build_object('cancel_reason',
             coalesce('payment_' || p_statuses[array_position(p_keys, e.payment_key)], 'payment_overdue')) end
    from unnest(v_kinds, v_event_orders, v_event_keys, v_deltas) with ordinality
      as e (kind, order_id, payment_key, delta, i)
    join flashsale_data.orders o on o.order_id = e.order_id
    order by e.i;
  end if;
end
$$;
comment on function flashsale_data.settle_payments(text[], bigint[], text[], numeric[], text[], jsonb[], timestamptz[]) is
  'What the provider''s word does to orders: the one home of that rule';
