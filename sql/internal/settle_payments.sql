-- Payment state machine: how a webhook changes an order. The only place that decides it.
--
--   order                          success                      failed, cancelled    declined
--   pending, in time               paid: applied                cancelled: applied   no_change
--   paid                           refund_due                   no_change            no_change
--   paid or cancelled, amount 0    no_change                    no_change            no_change
--   cancelled, payment_failed      units taken again: applied   no_change            no_change
--     or payment_overdue           none left: refund_due
--                                  more than the buyer's limit: refund_due, limit_reached
--   cancelled, any other reason    refund_due                   no_change            no_change
--   an amount or currency that is not the order's: amount_mismatch, order unchanged
--   a payment of 0 is never due: its refund is settled from the start
--
-- declined is one refused attempt, and the next may succeed: the order keeps its units until it is
-- overdue. An overdue order is cancelled for payment_overdue from its instant on, swept or not.
--
-- Decides in memory, payment by payment in array order, then writes each table once. Takes
-- rows of payments, either new webhooks (result null) or stored ones, and the orders that
-- lock_orders() has locked; p_slots has for each payment the position of its order. Locks
-- the claims of the orders' buyers in limit groups, then the orders' products. Returns the
-- results and the orders' statuses by payment; a new webhook whose product or claims are locked
-- elsewhere is left alone, and null.
create or replace function flashsale_data.settle_payments(
  p_payments flashsale_data.payments[], p_slots int[], p_orders flashsale_data.orders[], p_ctids tid[],
  out results text[], out order_statuses text[])
language plpgsql
as $$
#variable_conflict use_column
declare
  v_are_stored     boolean := p_payments[1].result is not null;
  v_payment        flashsale_data.payments;
  v_order          flashsale_data.orders;
  v_overdue        boolean;
  v_result         text;
  v_reason         text;
  v_reasons        text[];
  v_delta          int;
  v_order_slot     int;
  v_product_slot   int;
  -- by order, and the slots of those that have changed, and of those that are no longer pending
  v_orders         flashsale_data.orders[] := p_orders;
  v_changed        int[] := array[]::int[];
  v_not_pending    int[] := array[]::int[];
  -- by payment
  v_product_ids    bigint[];
  v_buyers         text[];
  v_product_slots  int[];
  v_locked_claims  boolean[];
  -- what terms_in_force() returns, if any order has a buyer
  v_has_buyers     boolean;
  v_terms          record;
  v_claim_slots    int[];
  v_taken          int[];
  v_limits         int[];
  v_scopes         text[];
  -- by product
  v_products       bigint[];
  v_product_ctids  tid[];
  v_available      int[];
  v_effective_nows timestamptz[];
  v_awaiting       int[];
  v_paid           int[];
  v_events         flashsale_data.events[] := array[]::flashsale_data.events[];
  v_written        bigint;
begin
  -- 1 Lock the claims of buyers and the products
  select array_agg((p_orders[slot]).product_id), array_agg((p_orders[slot]).buyer),
         bool_or((p_orders[slot]).buyer is not null)
    into v_product_ids, v_buyers, v_has_buyers
  from unnest(p_slots) as slot;
  select x.ids, x.slots into v_products, v_product_slots
  from flashsale_data.index_ids(v_product_ids) x;
  if v_has_buyers then
    perform flashsale_data.lock_claims(v_products, v_product_slots, v_buyers);
  end if;
  select l.ctids, l.available, l.effective_nows into v_product_ctids, v_available, v_effective_nows
  from flashsale_data.lock_stock(v_products) l;
  if v_has_buyers then
    v_terms := flashsale_data.terms_in_force(v_products, v_effective_nows, v_product_slots, v_buyers);
    v_claim_slots := v_terms.claim_slots;
    v_taken := v_terms.taken;
    v_scopes := v_terms.scopes;
    v_locked_claims := v_terms.locked_elsewhere;
    v_limits := v_terms.max_per_buyers;
  end if;
  v_awaiting := array_fill(0, array[cardinality(v_products)]);
  v_paid := v_awaiting;
  results := array_fill(null::text, array[cardinality(p_payments)]);
  order_statuses := results;
  v_reasons := results;

  -- 2 Decide in array order
  for v_i in 1 .. cardinality(p_payments) loop
    v_order_slot := p_slots[v_i];
    v_product_slot := v_product_slots[v_i]; -- guard: product-of-order
    continue when v_product_ctids[v_product_slot] is null or v_locked_claims[v_i];
    v_payment := p_payments[v_i];
    v_order := v_orders[v_order_slot];
    v_overdue := v_order.status = 'pending_payment'
      and v_order.payment_due_at <= v_effective_nows[v_product_slot]; -- guard: order-overdue

    v_result := case
      when v_payment.amount <> v_order.amount then 'amount_mismatch' -- guard: amount-matches
      when v_payment.currency <> v_order.currency then 'amount_mismatch' -- guard: currency-matches
      when v_payment.status = 'declined' then 'no_change' -- guard: declined-changes-nothing
      when v_order.status = 'pending_payment' and not v_overdue then 'applied'
      when v_payment.status <> 'success' then 'no_change' -- guard: failed-payment-in-time
      when v_order.amount = 0 then 'no_change' -- guard: nothing-to-refund
      when v_order.status = 'paid' then 'refund_due' -- guard: paid-once
      -- guard: cancelled-not-revived
      when v_order.cancel_reason not in ('payment_failed', 'payment_overdue') then 'refund_due'
      -- The order's units went back on sale, and may have been sold since.
      when v_order.qty <= v_available[v_product_slot] then 'applied' -- guard: units-left-to-revive
      else 'refund_due' end;
    -- So did the buyer's right to them.
    if v_has_buyers and v_result = 'applied' and v_payment.status = 'success'
       and (v_overdue or v_order.status = 'cancelled')
       and v_order.qty > v_limits[v_product_slot] - v_taken[v_claim_slots[v_i]] then -- guard: limit-to-revive
      v_result := 'refund_due';
      v_reason := 'limit_reached';
    else
      v_reason := case
        when v_payment.status <> 'success' then null
        when v_result = 'amount_mismatch' then v_result
        when v_result <> 'refund_due' then null
        when v_order.status = 'paid' then 'paid_twice'
        when v_order.cancel_reason not in ('payment_failed', 'payment_overdue') then 'order_cancelled'
        else 'sold_out' end;
    end if;
    v_reasons[v_i] := v_reason;

    -- A captured payment settles an overdue order: its cancellation is recorded first.
    if v_overdue and v_payment.status = 'success' and v_result <> 'amount_mismatch' then
      v_order.status := 'cancelled';
      v_order.cancel_reason := 'payment_overdue';
      v_orders[v_order_slot] := v_order;
      v_not_pending := v_not_pending || v_order_slot;
      v_changed := v_changed || v_order_slot;
      v_events := v_events || row(null, 'order_cancelled', null, v_order.product_id, v_order.hold_id,
        v_order.order_id, null, v_order.qty,
        jsonb_build_object('cancel_reason', v_order.cancel_reason))::flashsale_data.events;
    end if;

    if v_result = 'applied' then
      v_delta := case
        when v_payment.status <> 'success' then v_order.qty
        when v_order.status = 'cancelled' then -v_order.qty
        else 0 end;
      v_available[v_product_slot] := v_available[v_product_slot] + v_delta;
      if v_claim_slots[v_i] is not null then
        v_taken[v_claim_slots[v_i]] := v_taken[v_claim_slots[v_i]] - v_delta; -- guard: limit-in-payments
      end if;
      if v_order.status = 'pending_payment' then
        v_awaiting[v_product_slot] := v_awaiting[v_product_slot] - v_order.qty;
        v_not_pending := v_not_pending || v_order_slot;
      end if;
      if v_payment.status = 'success' then
        v_paid[v_product_slot] := v_paid[v_product_slot] + v_order.qty;
        v_order.status := 'paid';
        v_order.cancel_reason := null;
      else
        v_order.status := 'cancelled';
        v_order.cancel_reason := 'payment_' || v_payment.status;
      end if;
      v_changed := v_changed || v_order_slot;
      v_orders[v_order_slot] := v_order;
      v_events := v_events || row(null, 'order_' || v_order.status, null, v_order.product_id, v_order.hold_id,
        v_order.order_id, v_payment.idempotency_key, v_delta,
        case when v_order.status = 'cancelled' then jsonb_build_object('cancel_reason', v_order.cancel_reason)
        end)::flashsale_data.events;
    elsif v_result in ('refund_due', 'amount_mismatch') then -- guard: refund-in-ledger
      v_events := v_events || row(null, v_result, null, v_order.product_id, v_order.hold_id,
        v_order.order_id, v_payment.idempotency_key, 0,
        case when v_reason is not null then jsonb_build_object('reason', v_reason)
        end)::flashsale_data.events;
    end if;
    results[v_i] := v_result;
    order_statuses[v_i] := case when v_overdue and v_order.status = 'pending_payment' then 'cancelled'
                           else v_order.status end;
  end loop;

  -- 3 Write each table once
  if v_are_stored then
    update flashsale_data.payments p
    set result = r.result, order_status = r.order_status, refund_reason = r.reason,
        refund_state = flashsale_data.refund_state(
          r.reason, flashsale_data.captured_amount(p, p_orders[r.slot]), p.refunded) -- guard: stored-refunded
    from unnest(array(select s.idempotency_key from unnest(p_payments) as s), results, order_statuses, v_reasons,
                p_slots) as r (key, result, order_status, reason, slot)
    -- || '': docs/design.md
    where p.idempotency_key = r.key and p.result || '' = 'stored' and r.result is not null;
  else
    -- A caller above READ COMMITTED that cannot see the key's row gets 40001 here.
    insert into flashsale_data.payments
      (idempotency_key, order_id, status, amount, currency, payload, received_at, wait_ends_at,
       result, order_status, refund_reason, refund_state)
    select p.idempotency_key, p.order_id, p.status, p.amount, p.currency, p.payload, p.received_at, null,
           results[p.i], order_statuses[p.i], v_reasons[p.i],
           case when v_reasons[p.i] is null then null
                when p.amount = 0 then 'settled' else 'due' end -- guard: nothing-due
    from unnest(p_payments) with ordinality
      as p (idempotency_key, arrival, order_id, status, amount, currency, payload, received_at, result,
            order_status, wait_ends_at, refund_reason, refund_state, refunded, i)
    where results[p.i] is not null
    order by p.i
    on conflict (idempotency_key) do nothing;
  end if;
  get diagnostics v_written = row_count;
  if v_written <> cardinality(case when v_are_stored then results else array_remove(results, null) end) then
    perform flashsale_data.raise_unwritten('payments');
  end if;

  if cardinality(v_changed) > 0 then
    update flashsale_data.orders o
    set status = (v_orders[slot]).status, cancel_reason = (v_orders[slot]).cancel_reason
    from unnest(v_changed) as slot
    where o.ctid = p_ctids[slot];

    -- The rows exist; on conflict finds them by their key (docs/design.md).
    insert into flashsale_data.lapses as l (product_id, lapses_at, awaiting)
    select (p_orders[slot]).product_id, (p_orders[slot]).payment_due_at, sum((p_orders[slot]).qty)
    from unnest(v_not_pending) as slot
    group by 1, 2
    on conflict (product_id, lapses_at) do update set awaiting = l.awaiting - excluded.awaiting;

    update flashsale_data.stock s
    set version = s.version + 1, awaiting = s.awaiting + c.awaiting, paid = s.paid + c.paid
    from unnest(v_product_ctids, v_awaiting, v_paid) as c (ctid, awaiting, paid)
    where s.ctid = c.ctid and (c.awaiting, c.paid) <> (0, 0);

    if v_has_buyers then
      perform flashsale_data.settle_claims(
        array(select distinct v_orders[slot] from unnest(v_changed) as slot), v_products, v_scopes);
    end if;
  end if;
  perform flashsale_data.append_events(v_events); -- guard: payments-in-ledger
  if not v_are_stored then
    perform flashsale_data.settle_early_refunds(array( -- guard: early-refunds-of-payments
      select p.idempotency_key from unnest(p_payments, results) with ordinality
        as p (idempotency_key, arrival, order_id, status, amount, currency, payload, received_at, result,
              order_status, wait_ends_at, refund_reason, refund_state, refunded, outcome, i)
      where p.status = 'success' and p.outcome is not null));
  end if;
end
$$;
comment on function flashsale_data.settle_payments(
  flashsale_data.payments[], int[], flashsale_data.orders[], tid[]) is
  'Payment state machine: how webhooks change orders';
