-- Puts webhooks for unknown orders into the inbox, in array order, as far as
-- settings.inbox_limit lets it; the rest are left out (SA011 to their senders).
-- Expects the orders' ids to be locked: whoever creates one of them must see it.
create or replace function flashsale_data.store_payments(
  p_keys text[], p_order_ids bigint[], p_statuses text[], p_amounts numeric[], p_currencies text[],
  p_payloads jsonb[])
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  v_settings flashsale_data.settings;
  v_room     int;
begin
  select * into v_settings from flashsale_data.settings;
  -- A full inbox turns a flood away without making it queue for a lock.
  if exists (select from flashsale_data.inbox i where i.stored >= v_settings.inbox_limit)
     and not exists (
       select from flashsale_data.payments p
       where p.result = 'stored' and p.received_at <= clock_timestamp() - v_settings.inbox_keep)
     and current_setting('transaction_isolation') = 'read committed' then
    return;
  end if;

  -- The inbox row is the last lock of all; it makes the limit exact.
  select v_settings.inbox_limit - i.stored into v_room from flashsale_data.inbox i for no key update;
  if v_room < cardinality(p_keys) then
    v_room := v_room + flashsale_data.expire_inbox(v_settings.inbox_limit);
    -- What somebody else has locked waits no longer either, and takes no room.
    v_room := v_room + (
      select count(*)::int from flashsale_data.payments p
      where p.result = 'stored' and p.received_at <= clock_timestamp() - v_settings.inbox_keep);
  end if;
  if v_room <= 0 then
    return;
  end if;

  perform flashsale_data.open_ledger();
  -- A REPEATABLE READ caller that cannot see the key's row gets 40001 here.
  with stored as (
    insert into flashsale_data.payments
      (idempotency_key, order_id, status, amount, currency, payload, received_at, result)
    select r.key, r.order_id, r.status, r.amount, r.currency, r.payload, clock_timestamp(), 'stored'
    from unnest(p_keys, p_order_ids, p_statuses, p_amounts, p_currencies, p_payloads) with ordinality
      as r (key, order_id, status, amount, currency, payload, i)
    order by r.i
    limit v_room
    on conflict (idempotency_key) do nothing
    returning idempotency_key, order_id
  ), recorded as (
    insert into flashsale_data.events (kind, at, order_id, payment_key)
    select 'payment_stored', clock_timestamp(), s.order_id, s.idempotency_key
    from stored s
  )
  update flashsale_data.inbox set stored = stored + (select count(*) from stored);
end
$$;
comment on function flashsale_data.store_payments(text[], bigint[], text[], numeric[], text[], jsonb[]) is
  'Puts webhooks for unknown orders into the inbox, as far as there is room';
