-- Takes the stored webhooks of these orders out of the inbox: applies those whose wait had not
-- ended at p_now, the time at which the orders were created, in order of arrival, and ends the
-- wait of the others. False if none was applied.
--
-- Expects the orders' ids to be locked, so that no webhook can be stored for them
-- meanwhile. Locks the webhooks, then the inbox row, which is the last lock of all. For || ''
-- see docs/design.md.
create or replace function flashsale_data.settle_stored(p_order_ids bigint[], p_now timestamptz)
returns boolean
language plpgsql
as $$
declare
  v_to_apply  flashsale_data.payments[];
  v_ended     int;
  v_order_ids bigint[];
  v_slots     int[];
begin
  -- A sweep may hold the lock of one whose wait has ended since p_now, and remove it.
  v_to_apply := array(
    select p from flashsale_data.payments p
    where p.order_id = any (p_order_ids) and p.result || '' = 'stored'
      and p.wait_ends_at > p_now -- guard: ended-wait-not-applied
    order by p.arrival -- guard: order-of-arrival
    for update of p);
  -- One that a sweep has locked is left to it: its wait has ended for good, so that no
  -- transaction applies it.
  v_ended := flashsale_data.end_waits(array(
    select p.idempotency_key from flashsale_data.payments p
    where p.order_id = any (p_order_ids) and p.result || '' = 'stored'
      and p.wait_ends_at <= p_now -- guard: wait-ended
    for update skip locked), p_now);
  if cardinality(v_to_apply) > 0 then
    select x.ids, x.slots into v_order_ids, v_slots
    from flashsale_data.index_ids(array(select p.order_id from unnest(v_to_apply) as p)) x;
    perform flashsale_data.settle_payments(v_to_apply, v_slots, l.orders, l.ctids)
    from flashsale_data.lock_orders(v_order_ids) l;
  end if;
  update flashsale_data.inbox set stored = stored - cardinality(v_to_apply) - v_ended
  where cardinality(v_to_apply) + v_ended > 0;
  return cardinality(v_to_apply) > 0;
end
$$;
comment on function flashsale_data.settle_stored(bigint[], timestamptz) is
  'Applies the stored webhooks of these orders';
