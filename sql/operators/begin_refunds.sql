-- A worker's outbox of refunds: takes at most p_limit payments for which money is owed back, the
-- oldest first, or those of p_payment_keys only, and returns for each the request to make to the
-- provider. refund_key is the idempotency key of that request: it stays the same until
-- record_refunds() has recorded an outcome, so that a worker that dies in between, or another one,
-- repeats the request and does not make a second one. A request is one worker's for 5 minutes;
-- afterwards it is handed out again, with the same amount. One that failed is followed by another
-- with a new key. A payment whose amount is not known is left to operators, and so is one of a test
-- product's order unless p_payment_keys names it.
--
-- Locks    the payments, those locked elsewhere left out, to commit. Stored webhooks whose wait has
--          ended become due first (expire_inbox()).
-- Refuses  SA009 invalid_request, also above READ COMMITTED, where a request of another worker
--          might not be seen.
create or replace function flashsale.begin_refunds(p_limit int default 100, p_payment_keys text[] default null)
returns table (refund_key text, payment_key text, order_id bigint, amount numeric, currency text, reason text)
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
  c_lease constant interval := interval '5 minutes';
  v_keys  text[];
  v_now   timestamptz;
begin
  if p_limit is null or p_limit not between 1 and 1000 then
    perform flashsale_data.raise_refusal('SA009', 'A limit is 1 to 1,000.');
  elsif flashsale_data.keeps_snapshot() then -- guard: refunds-isolation
    perform flashsale_data.raise_refusal('SA009', 'Refunds are begun at READ COMMITTED.');
  end if;

  p_payment_keys := flashsale_data.kept_payment_keys(p_payment_keys);

  -- 1 Nothing here waits for the sweep: what has become due is recorded first
  perform flashsale_data.expire_inbox(1000);

  -- 2 Lock the payments, read the clock
  v_keys := array(
    select p.idempotency_key
    from flashsale_data.payments p
    left join flashsale_data.orders o on o.order_id = p.order_id
    where p.refund_state = 'due'
      and case when p_payment_keys is null
               then (o.product_id in (
                 select t.product_id from flashsale_data.products t
                 where t.is_test)) is not true -- guard: tests-not-begun
               else p.idempotency_key = any (p_payment_keys) end
      and flashsale_data.captured_amount(p, o) > p.refunded
      and not exists (
        select from flashsale_data.refunds r
        where r.payment_key = p.idempotency_key and r.status = 'requested'
          and r.lease_ends_at > clock_timestamp()) -- guard: refund-lease
    order by p.arrival
    limit p_limit
    for no key update of p skip locked); -- guard: refund-payment-lock
  v_now := clock_timestamp();
  perform flashsale_data.announce_ledger_write();

  -- 3 Write the requests; a statement of its own, after the locks: what another worker has
  -- committed meanwhile is seen
  return query
  with due as materialized (
    select p.idempotency_key, p.arrival, p.order_id, p.refund_reason,
           flashsale_data.captured_amount(p, o) - p.refunded as owed,
           coalesce(p.currency, o.currency) as currency, o.product_id, o.hold_id, known.refund_key as known
    from flashsale_data.payments p
    left join flashsale_data.orders o on o.order_id = p.order_id
    left join flashsale_data.refunds known
      on known.payment_key = p.idempotency_key and known.status = 'requested'
    where p.idempotency_key = any (v_keys) and p.refund_state = 'due'
      and (known.refund_key is null or known.lease_ends_at <= v_now) -- guard: refund-lease
  ), renewed as (
    update flashsale_data.refunds r set lease_ends_at = v_now + c_lease
    from due d where r.refund_key = d.known
    returning r.refund_key, r.payment_key, r.amount
  ), begun as (
    insert into flashsale_data.refunds
      (refund_key, payment_key, amount, currency, kind, status, requested_at, lease_ends_at)
    select 'rf_' || replace(gen_random_uuid()::text, '-', ''), d.idempotency_key, d.owed, d.currency, 'refund',
           'requested', v_now, v_now + c_lease
    from due d where d.known is null and d.owed > 0
    returning refund_key, payment_key, amount
  ), recorded as (
    insert into flashsale_data.events (kind, at, product_id, hold_id, order_id, payment_key, data)
    select 'refund_requested', clock_timestamp(), d.product_id, d.hold_id, d.order_id, d.idempotency_key,
           jsonb_build_object('refund_key', b.refund_key, 'amount', b.amount::text, 'currency', d.currency)
    from begun b join due d on d.idempotency_key = b.payment_key
  )
  select handed.refund_key, d.idempotency_key, d.order_id, handed.amount, d.currency, d.refund_reason
  from (select * from renewed union all select * from begun) handed
  join due d on d.idempotency_key = handed.payment_key
  order by d.arrival;
end
$$;
comment on function flashsale.begin_refunds(int, text[]) is
  'Takes refunds that are due, for a worker that makes them at the provider';
revoke execute on function flashsale.begin_refunds(int, text[]) from public;
grant execute on function flashsale.begin_refunds(int, text[]) to flashsale_ops;
