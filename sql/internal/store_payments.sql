-- Stores webhooks for unknown orders in the inbox, in array order, up to settings.inbox_limit;
-- the rest are left out, and apply_payments refuses them (SA011). Expects the orders' ids to
-- be locked: the transaction that creates one of the orders must see its webhooks. Returns how
-- many it stored. Raises SA029 if a slot has moved meanwhile.
create or replace function flashsale_data.store_payments(p_payments flashsale_data.payments[])
returns int
language plpgsql
as $$
declare
  v_settings flashsale_data.settings;
  v_room     int;
  v_now      timestamptz := clock_timestamp();
  v_written  bigint;
begin
  -- A full inbox rejects a flood without queueing it for a lock.
  if not flashsale_data.keeps_snapshot()
     -- guard: inbox-limit
     and exists (select from flashsale_data.inbox i, flashsale_data.settings s where i.stored >= s.inbox_limit)
     and not exists (
       select from flashsale_data.payments p where p.result = 'stored' and p.wait_ends_at <= v_now) then
    return 0;
  end if;

  -- The inbox row is the last lock of all; it makes the limit exact. The settings are read
  -- after it, since the limit may change while this call waits.
  select i.stored into v_room from flashsale_data.inbox i -- guard: inbox-limit-read
  for no key update; -- guard: inbox-lock
  perform flashsale_data.reject_stale_snapshot();
  perform flashsale_data.check_unknown_orders(p_payments);
  select * into v_settings from flashsale_data.settings; -- guard: inbox-limit-read
  v_room := v_settings.inbox_limit - v_room; -- guard: inbox-limit
  v_now := clock_timestamp();
  if v_room < cardinality(p_payments) then
    v_room := v_room + flashsale_data.expire_inbox(v_settings.inbox_limit);
    -- A webhook whose wait has ended takes no room, even while another transaction holds its
    -- lock.
    v_room := v_room + (
      select count(*)::int from flashsale_data.payments p
      where p.result = 'stored' and p.wait_ends_at <= v_now); -- guard: ended-wait-takes-no-room
  end if;
  v_room := least(v_room, cardinality(p_payments));
  if v_room <= 0 then
    return 0;
  end if;

  perform flashsale_data.announce_ledger_write();
  -- A caller above READ COMMITTED that cannot see the key's row gets 40001 here.
  with stored as (
    insert into flashsale_data.payments
      (idempotency_key, order_id, status, amount, currency, payload, received_at, wait_ends_at, result)
    select p.idempotency_key, p.order_id, p.status, p.amount, p.currency, p.payload,
           v_now, flashsale_data.expiry_instant(v_now + v_settings.inbox_keep), 'stored'
    from unnest(p_payments[:v_room]) p
    on conflict (idempotency_key) do nothing
    returning idempotency_key, order_id
  ), recorded as (
    insert into flashsale_data.events (kind, at, order_id, payment_key)
    select 'payment_stored', v_now, s.order_id, s.idempotency_key
    from stored s
  )
  select count(*) into v_written from stored;
  if v_written <> v_room then
    perform flashsale_data.raise_unwritten('payments');
  end if;
  update flashsale_data.inbox set stored = stored + v_room;
  perform flashsale_data.settle_early_refunds(array( -- guard: early-refunds-of-stored
    select p.idempotency_key from unnest(p_payments[:v_room]) p where p.status = 'success'));
  return v_room;
end
$$;
comment on function flashsale_data.store_payments(flashsale_data.payments[]) is
  'Stores webhooks for unknown orders in the inbox, up to its limit';
