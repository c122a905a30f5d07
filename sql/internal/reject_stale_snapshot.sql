-- Above READ COMMITTED: raises 40001 if one of these ids or keys is in use by now and the
-- snapshot does not show it, or if the settings have changed. Without this the call would
-- report an existing product or hold as unknown, serve a used key as new, or apply settings
-- that are no longer in force.
--
-- An insert that skips conflicts raises 40001 at a row that the snapshot does not show. The
-- rows it inserts never stay: they name no product, so that the foreign key undoes them;
-- products and payments have no such key, and an SA000 undoes theirs (flashsale.refusals).
-- p_awaited_keys are of payments that refunds may have come before.
create or replace function flashsale_data.reject_stale_snapshot(
  p_product_ids bigint[] default '{}', p_hold_ids bigint[] default '{}', p_hold_keys text[] default '{}',
  p_order_ids bigint[] default '{}', p_order_keys text[] default '{}', p_payment_keys text[] default '{}',
  p_awaited_keys text[] default '{}')
returns void
language plpgsql
as $$
begin
  if not flashsale_data.keeps_snapshot() then -- guard: unseen-rows
    return;
  end if;
  perform from flashsale_data.settings for share; -- guard: unseen-settings

  -- In ascending order, since an insert waits for another transaction's row.
  begin
    insert into flashsale_data.products (product_id, name, price, currency, created_at)
    overriding system value
    select u, 'undone', 0, 'XXX', clock_timestamp()
    from (select distinct unnest(p_product_ids) order by 1) as wanted (u)
    where u is not null
    on conflict (product_id) do nothing;
    raise exception using errcode = 'SA000';
  exception when sqlstate 'SA000' then
    null;
  end;

  begin
    insert into flashsale_data.holds
      (hold_id, product_id, qty, placed_at, expires_at, idempotency_key, currency, price)
    select coalesce(u.hold_id, flashsale_data.new_hold_id()), -1, 1, clock_timestamp(), clock_timestamp(), u.key,
           'XXX', 0
    from (
      select h, null from unnest(p_hold_ids) h where h between 1 and 9007199254740991
      union
      select null, k from unnest(p_hold_keys) k where length(k) between 1 and 255 -- guard: unseen-hold-keys
      order by 1, 2) as u (hold_id, key)
    on conflict do nothing;
  exception when foreign_key_violation then
    null;
  end;

  begin
    insert into flashsale_data.orders
      (order_id, hold_id, product_id, qty, amount, currency, created_at, payment_due_at, idempotency_key)
    select coalesce(u.order_id, -flashsale_data.new_hold_id()), -flashsale_data.new_hold_id(), -1, 1, 0, 'XXX',
           clock_timestamp(), clock_timestamp(), u.key
    from (
      -- An id that was never drawn has no order.
      select o, null from unnest(p_order_ids) o
      where o > 0 and o / (select s.slots from flashsale_data.shard s)
              <= coalesce(pg_sequence_last_value('flashsale_data.order_ids'), 0)
      union
      select null, k from unnest(p_order_keys) k where length(k) between 1 and 255
      order by 1, 2) as u (order_id, key)
    on conflict do nothing;
  exception when foreign_key_violation then
    null;
  end;

  begin
    insert into flashsale_data.payments (idempotency_key, order_id, status, payload, received_at, result)
    select k, 1, 'declined', '{}', clock_timestamp(), 'no_change'
    from (select distinct unnest(p_payment_keys) order by 1) as wanted (k)
    on conflict (idempotency_key) do nothing;
    insert into flashsale_data.awaited_payments (payment_key, first_refund_at)
    select k, clock_timestamp()
    from (select distinct unnest(p_awaited_keys) order by 1) as wanted (k)
    on conflict (payment_key) do nothing;
    raise exception using errcode = 'SA000';
  exception when sqlstate 'SA000' then
    null;
  end;
end
$$;
comment on function flashsale_data.reject_stale_snapshot(
  bigint[], bigint[], text[], bigint[], text[], text[], text[]) is
  'Above READ COMMITTED, raises 40001 if an id or key is in use that the snapshot does not show';
