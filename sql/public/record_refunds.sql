-- Records what has become of refunds: done or failed. p_refund_keys are keys of begin_refunds(),
-- or, for what the provider has done by itself (a refund made in its dashboard, a chargeback), the
-- provider's own id, which need not be known. p_kinds: refund (the default), void (an authorisation
-- that was given up), chargeback. p_payloads are kept. Amounts are decimal, in the payment's
-- currency, which a currency in the payload must be; of a void it may be null: all that is left.
--
-- failed overrides done, in whatever order they come: the money came back. A request that failed is
-- due again. A payment that pays an order may be refunded, too, in part or whole: its order stays
-- paid, and nothing more is due. One row a request, in order: what of the payment has been
-- refunded, and what is still owed.
--
-- With p_await_payment, an outcome whose payment is unknown is kept until that payment comes, and
-- counted then: a provider's webhooks may overtake each other. It is a fact, whatever its amount. Until
-- then refunded and still_due are null; purge() deletes one whose payment has not come. Not where the
-- shop has several slots: the payment, once it comes, may be on another shard.
--
-- Locks    refund keys, the payments' keys, then the payments, to commit.
-- Replays  a key with the same word, or with done after failed.
-- Refuses  SA008 idempotency_key_reused (the key with another payment or amount), SA009
--          invalid_request, SA020 payment_not_found (no payment that was captured has this key), SA021
--          refund_too_large (members has refundable: what has been captured and not refunded; a chargeback
--          is a fact, whatever its amount); 55P03 and 40001 as in place_holds.
create or replace function flashsale.record_refunds(
  p_request_nos int[], p_refund_keys text[], p_payment_keys text[], p_amounts numeric[], p_statuses text[],
  p_kinds text[] default null, p_payloads jsonb[] default null, p_await_payment boolean default false)
returns table (request_no int, sqlstate text, detail text, payment_key text, refunded numeric, still_due numeric,
               replayed boolean, members jsonb)
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
  v_dims     text := array_dims(p_request_nos);
  v_size     int := flashsale_data.batch_size(cardinality(p_request_nos), v_dims, array_dims(p_refund_keys),
               array_dims(p_payment_keys), array_dims(p_amounts), array_dims(p_statuses),
               case when p_kinds is null then v_dims else array_dims(p_kinds) end,
               case when p_payloads is null then v_dims else array_dims(p_payloads) end);
  v_errors   text[];
  v_keys     text[];
  v_payment_keys text[];
  v_locked   text[];
  v_ended    int := 0;
  v_now      timestamptz;
  v_is_known boolean;
  v_payment  flashsale_data.payments;
  v_order    flashsale_data.orders;
  v_known    flashsale_data.refunds;
  v_captured numeric;
  v_currency text;
  v_kind     text;
  v_amount   numeric;
  v_refundable numeric;
  v_events   flashsale_data.events[] := array[]::flashsale_data.events[];
  v_written  bigint;
begin
  -- 1 Validate, lock the keys, then the payments
  p_payment_keys := flashsale_data.kept_payment_keys(p_payment_keys);
  p_await_payment := p_await_payment and (select s.slots from flashsale_data.shard s) = 1;
  v_errors := array(
    select flashsale_data.refund_error(r.refund_key, r.payment_key, r.amount, r.status,
                                       coalesce(p_kinds[r.i], 'refund'), coalesce(p_payloads[r.i], '{}'))
    from unnest(p_refund_keys, p_payment_keys, p_amounts, p_statuses) with ordinality
      as r (refund_key, payment_key, amount, status, i)
    order by r.i);
  v_keys := flashsale_data.lock_keys('refund', array(
    select r.key from unnest(p_refund_keys, v_errors) as r (key, error) where r.error is null));
  -- The lock of a webhook, too: a payment and a refund that comes before it cannot miss each other.
  v_payment_keys := flashsale_data.lock_keys('payment', array( -- guard: early-refund-lock
    select r.key from unnest(p_payment_keys, v_errors) as r (key, error) where r.error is null));
  perform flashsale_data.reject_stale_snapshot(p_payment_keys => v_payment_keys); -- guard: unseen-payments
  if v_size = 1 then
    v_locked := array(
      select p.idempotency_key from flashsale_data.payments p
      where p.idempotency_key = p_payment_keys[1] and v_errors[1] is null
      for no key update); -- guard: recorded-payment-lock
  else
    -- Never waits for one payment while it holds another.
    v_locked := array(
      select p.idempotency_key from flashsale_data.payments p
      where p.idempotency_key = any (p_payment_keys)
      for no key update skip locked); -- guard: recorded-payments-lock
  end if;
  -- A purge that removes refunds of payments that have not come is waited for.
  perform from flashsale_data.awaited_payments a where a.payment_key = any (v_payment_keys) for update; -- guard: awaited-lock
  v_now := clock_timestamp();
  v_ended := flashsale_data.end_waits(array(
    select p.idempotency_key from flashsale_data.payments p
    where p.idempotency_key = any (v_locked) and p.result = 'stored' and p.status = 'success'
      and p.wait_ends_at <= v_now), v_now);

  -- 2 Decide and write in array order: refunds are few
  for v_i in 1 .. v_size loop
    request_no := p_request_nos[v_i];
    sqlstate := null;
    detail := null;
    payment_key := null;
    refunded := null;
    still_due := null;
    replayed := false;
    members := null;
    v_kind := coalesce(p_kinds[v_i], 'refund');
    if v_errors[v_i] is not null then
      sqlstate := 'SA009';
      detail := v_errors[v_i];
      return next;
      continue;
    end if;

    select * into v_payment from flashsale_data.payments p where p.idempotency_key = p_payment_keys[v_i];
    v_is_known := found;
    if v_is_known and p_payment_keys[v_i] <> all (v_locked) or p_refund_keys[v_i] <> all (v_keys)
       or p_payment_keys[v_i] <> all (v_payment_keys) then
      sqlstate := '55P03';
      return next;
      continue;
    end if;
    if v_is_known and v_payment.status <> 'success' or not v_is_known and p_await_payment is not true then
      sqlstate := 'SA020';
      detail := format('There is no captured payment %s.', left(p_payment_keys[v_i], 255));
      return next;
      continue;
    end if;
    select * into v_order from flashsale_data.orders o where o.order_id = v_payment.order_id;
    v_captured := flashsale_data.captured_amount(v_payment, v_order);
    v_currency := coalesce(v_payment.currency, v_order.currency);
    v_refundable := case when v_captured is not null then greatest(v_captured - v_payment.refunded, 0) end;

    select * into v_known from flashsale_data.refunds r where r.refund_key = p_refund_keys[v_i];
    v_amount := coalesce(p_amounts[v_i], v_known.amount, v_refundable);
    if upper(p_payloads[v_i] ->> 'currency' collate "C") <> v_currency then -- guard: refund-in-its-currency
      sqlstate := 'SA009';
      detail := format('Payment %s is in %s, the refund in another currency.', v_payment.idempotency_key, v_currency);
    elsif v_known.refund_key is not null
       and (v_known.payment_key, v_known.amount) <> (p_payment_keys[v_i], v_amount) then
      sqlstate := 'SA008'; -- guard: refund-key-reused
      detail := 'This refund key came with another payment or amount.';
    elsif v_known.status = p_statuses[v_i] or v_known.status = 'failed' then -- guard: failed-overrides-done
      replayed := true;
    elsif v_is_known and v_amount is null or v_amount = 0 and p_statuses[v_i] = 'failed' then
      sqlstate := 'SA009';
      detail := 'What is left to refund is not known: name the amount.';
    elsif v_known.status is distinct from 'done' and p_statuses[v_i] = 'done' and v_kind <> 'chargeback'
          and (v_amount > v_refundable or v_amount = 0) then -- guard: refund-too-large
      sqlstate := 'SA021';
      detail := format('Payment %s has %s %s left to refund, not %s.', v_payment.idempotency_key, v_refundable,
                       v_currency, v_amount);
      members := jsonb_build_object('refundable', v_refundable);
    else
      insert into flashsale_data.refunds as r
        (refund_key, payment_key, amount, currency, kind, status, recorded_at, payload)
      values (p_refund_keys[v_i], p_payment_keys[v_i], v_amount, v_currency, v_kind, p_statuses[v_i], v_now,
              coalesce(p_payloads[v_i], '{}'))
      on conflict (refund_key) do update
      set status = excluded.status, kind = excluded.kind, recorded_at = excluded.recorded_at,
          payload = excluded.payload
      where r.refund_key = v_known.refund_key;
      get diagnostics v_written = row_count;
      if v_written = 0 then
        -- A caller above READ COMMITTED that cannot see the key's row gets 40001.
        perform flashsale_data.raise_unwritten('refunds');
      end if;
      if not v_is_known then
        insert into flashsale_data.awaited_payments (payment_key, first_refund_at)
        values (p_payment_keys[v_i], v_now)
        on conflict (payment_key) do nothing;
        payment_key := p_payment_keys[v_i];
        return next;
        continue;
      end if;
      v_payment.refunded := v_payment.refunded + case
        when p_statuses[v_i] = 'done' then v_amount
        when v_known.status = 'done' then -coalesce(v_known.amount, 0) -- guard: failed-is-due-again
        else 0 end;
      -- Also unchanged: it raises 40001 in a caller whose snapshot is older.
      update flashsale_data.payments p
      set refunded = v_payment.refunded,
          refund_state = flashsale_data.refund_state(p.refund_reason, v_captured, v_payment.refunded)
      where p.idempotency_key = v_payment.idempotency_key;
      v_refundable := case when v_captured is not null then greatest(v_captured - v_payment.refunded, 0) end;
      v_events := v_events || row(null, 'refund_' || p_statuses[v_i], null, v_order.product_id, v_order.hold_id,
        v_payment.order_id, v_payment.idempotency_key, 0,
        jsonb_build_object('refund_key', p_refund_keys[v_i], 'amount', v_amount::text,
                           'currency', v_currency, 'kind', v_kind))::flashsale_data.events;
    end if;
    if sqlstate is null then
      payment_key := p_payment_keys[v_i];
      refunded := v_payment.refunded;
      still_due := case when not v_is_known then null
                        when v_payment.refund_reason is null then 0
                        else coalesce(v_refundable, case when refunded > 0 then 0 end) end;
    end if;
    return next;
  end loop;
  perform flashsale_data.append_events(v_events); -- guard: refunds-in-ledger
  -- The inbox row is the last lock of all.
  update flashsale_data.inbox set stored = stored - v_ended where v_ended > 0;
end
$$;
comment on function flashsale.record_refunds(
  int[], text[], text[], numeric[], text[], text[], jsonb[], boolean) is
  'Records what has become of refunds; one outcome row each';
revoke execute on function flashsale.record_refunds(
  int[], text[], text[], numeric[], text[], text[], jsonb[], boolean) from public;
grant execute on function flashsale.record_refunds(
  int[], text[], text[], numeric[], text[], text[], jsonb[], boolean) to flashsale_api;
