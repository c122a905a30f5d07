-- Counts refunds that came before the payments with these keys, which have just been recorded as
-- captured: record_refunds() has kept them. They are facts, whatever their amount; a void that
-- names none returns what is left. Their events are written now, after those of the payment.
--
-- Expects the payments' keys to be locked, so that no refund is kept meanwhile. Locks the awaited
-- payments' rows: only purge() wants them, too, and it skips locked ones.
create or replace function flashsale_data.settle_early_refunds(p_payment_keys text[])
returns void
language plpgsql
as $$
declare
  v_keys text[];
begin
  perform flashsale_data.reject_stale_snapshot(p_awaited_keys => p_payment_keys); -- guard: unseen-early-refunds
  -- Most calls: no refund waits for a payment.
  if not exists (select from flashsale_data.awaited_payments) then
    return;
  end if;
  with came as (
    delete from flashsale_data.awaited_payments a where a.payment_key = any (p_payment_keys)
    returning a.payment_key
  )
  select array_agg(c.payment_key order by c.payment_key) into v_keys from came c;
  if v_keys is null then
    return;
  end if;
  perform flashsale_data.announce_ledger_write();

  -- One void a payment can return what is left; of another one nothing is.
  with payment as materialized (
    select p.idempotency_key, coalesce(p.currency, o.currency) as currency, o.product_id, o.hold_id, p.order_id,
           p.refund_reason, flashsale_data.captured_amount(p, o) as captured,
           coalesce(sums.named, 0) as named
    from flashsale_data.payments p
    left join flashsale_data.orders o on o.order_id = p.order_id
    cross join lateral (
      select sum(r.amount) filter (where r.status = 'done') as named
      from flashsale_data.refunds r where r.payment_key = p.idempotency_key) sums
    where p.idempotency_key = any (v_keys)
  ), refund as materialized (
    select r.refund_key, r.payment_key, r.kind, r.status, r.recorded_at, p.currency, p.product_id, p.hold_id,
           p.order_id,
           coalesce(r.amount, case
             when r.status = 'done' and p.captured > p.named
               and r.refund_key = min(r.refund_key) filter (where r.amount is null and r.status = 'done')
                                    over (partition by r.payment_key)
               then p.captured - p.named end) as amount
    from flashsale_data.refunds r join payment p on p.idempotency_key = r.payment_key
  ), amounts as (
    update flashsale_data.refunds r set amount = n.amount, currency = n.currency
    from refund n where r.refund_key = n.refund_key
  ), counted as (
    update flashsale_data.payments p
    set refunded = s.refunded,
        refund_state = flashsale_data.refund_state(p.refund_reason, m.captured, s.refunded)
    from payment m
    cross join lateral (
      select coalesce(sum(n.amount) filter (where n.status = 'done'), 0) as refunded
      from refund n where n.payment_key = m.idempotency_key) s
    where p.idempotency_key = m.idempotency_key -- guard: early-refunds-counted
  )
  insert into flashsale_data.events (kind, at, product_id, hold_id, order_id, payment_key, data)
  select 'refund_' || n.status, clock_timestamp(), n.product_id, n.hold_id, n.order_id, n.payment_key,
         jsonb_build_object('refund_key', n.refund_key, 'amount', n.amount::text, 'currency', n.currency,
                            'kind', n.kind)
  from refund n
  where n.amount is not null -- guard: early-refunds-in-ledger
  order by n.payment_key, n.recorded_at, n.refund_key;
end
$$;
comment on function flashsale_data.settle_early_refunds(text[]) is
  'Counts the refunds that came before their payments';
