-- Takes stored webhooks (p_keys) of these orders out of the inbox: applies those that
-- were still waiting at p_now, the time at which the orders were created, in order of
-- arrival, and ends the wait of the others. False if none was applied.
--
-- Expects the orders' ids to be locked: no webhook can be stored for them meanwhile.
-- Locks the webhooks, then the inbox row, which is the last lock of all. For || '' see
-- announce_early_payments().
create or replace function flashsale_data.settle_stored(
  p_keys text[], p_order_ids bigint[], p_now timestamptz)
returns boolean
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  v_waiting flashsale_data.payments[];
  v_ended   int;
begin
  -- A sweep may have one locked whose wait has ended since p_now, and takes it away.
  v_waiting := array(
    select p from flashsale_data.payments p
    where p.idempotency_key = any (p_keys) and p.order_id = any (p_order_ids)
      and p.result || '' = 'stored'
      and p.wait_ends_at > p_now -- guard: only-waiting-applied
    order by p.arrival -- guard: order-of-arrival
    for update of p);
  -- One that a sweep has locked is left to it: its wait stays over, so that no
  -- transaction applies it.
  v_ended := flashsale_data.end_waits(array(
    select p.idempotency_key from flashsale_data.payments p
    where p.idempotency_key = any (p_keys) and p.order_id = any (p_order_ids)
      and p.result || '' = 'stored'
      and p.wait_ends_at <= p_now -- guard: wait-ended
    for update skip locked), p_now);
  if cardinality(v_waiting) > 0 then
    perform flashsale_data.settle_payments(v_waiting);
  end if;
  update flashsale_data.inbox set stored = stored - cardinality(v_waiting) - v_ended
  where cardinality(v_waiting) + v_ended > 0;
  return cardinality(v_waiting) > 0;
end
$$;
comment on function flashsale_data.settle_stored(text[], bigint[], timestamptz) is
  'Applies the webhooks that came before these orders';
