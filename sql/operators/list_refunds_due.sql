-- Captured payments for which money is owed back, at most p_limit of them (null: all), with what is
-- still owed: what was captured, less what record_refunds() has recorded as done. They include
-- those whose order did not come within their wait, recorded by a sweep or not, as soon as it
-- is certain: a refund that has been listed stays due. Payments for orders of test products are
-- left out unless p_tests.
--
-- A transaction that may apply stored webhooks announces the time from which their wait may
-- end by an advisory lock, and then reads the clock (announce_stored_webhooks()). This function
-- reads the clock, then the locks, then the rows. A wait that ended after an announced time is
-- left out; a transaction that announces later finds the wait ended; what a finished
-- transaction did is in the rows. Where that order cannot be kept (above READ COMMITTED, and on
-- a standby, which has no locks), only recorded refunds are listed.
--
-- A payment that names no amount has its order's, in the order's currency only: of one that
-- names another currency the amount is not known, and null. A payment that names no currency
-- is in its order's.
-- Refuses SA009 invalid_request.
create or replace function flashsale.list_refunds_due(p_limit int default null, p_tests boolean default false)
returns table (idempotency_key text, order_id bigint, amount numeric, currency text,
               received_at timestamptz, reason text)
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
  v_now        timestamptz := clock_timestamp();
  v_tenths     bigint := floor(extract(epoch from v_now) * 10)::bigint;
  v_certain    timestamptz;
begin
  if p_limit < 0 then
    perform flashsale_data.raise_refusal('SA009', 'A limit is 0 or more.');
  end if;
  -- A lock's number is the lower 31 bits of the tenths. Of one that was taken after v_now the
  -- difference wraps around to a large number.
  select case when flashsale_data.keeps_snapshot() or pg_is_in_recovery() then '-infinity'
              -- guard: refund-certain
              else least(v_now, to_timestamp((v_tenths - max(announced.behind)) / 10.0)) end
    into v_certain
  from pg_locks l
  cross join lateral (select (v_tenths - l.objid::bigint) & 2147483647 as behind) announced
  where l.locktype = 'advisory' and l.granted and l.objsubid = 2
    and l.database = (select d.oid from pg_database d where d.datname = current_database())
    and l.classid = (hashtext('flashsale.stored_webhooks')::bigint & 4294967295)::oid
    and announced.behind < 1073741824;

  return query
  select (due.payment).idempotency_key, (due.payment).order_id,
         flashsale_data.captured_amount(due.payment, o) - (due.payment).refunded,
         coalesce((due.payment).currency, o.currency), (due.payment).received_at,
         coalesce((due.payment).refund_reason, 'order_unknown')
  from (
    select d as payment from flashsale_data.payments d
    where d.refund_state = 'due' -- guard: refunds-recorded
    union all
    select w from flashsale_data.payments w
    -- guard: refunds-unswept
    where w.status = 'success' and w.result = 'stored' and w.wait_ends_at <= v_certain
      and w.amount is distinct from 0) due -- guard: nothing-due-unswept
  left join flashsale_data.orders o on o.order_id = (due.payment).order_id
  cross join lateral (
    select flashsale_data.refund_state(
      'due', flashsale_data.captured_amount(due.payment, o), (due.payment).refunded) as state) refund
  where refund.state = 'due' -- guard: refunded-not-listed
  -- Of an order that does not exist, or not yet, nothing is known: its payment is listed.
  and (p_tests or (o.product_id in (
    select t.product_id from flashsale_data.products t where t.is_test)) is not true) -- guard: tests-not-refunded
  limit p_limit;
end
$$;
comment on function flashsale.list_refunds_due(int, boolean) is 'Captured payments for which money is owed back, as far as that is certain';
revoke execute on function flashsale.list_refunds_due(int, boolean) from public;
grant execute on function flashsale.list_refunds_due(int, boolean) to flashsale_ops;
