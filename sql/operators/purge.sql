-- Deletes what is finished and older than p_older_than: expired and released holds, cancelled
-- orders with their holds and webhooks, rejected webhooks that were dismissed, operators'
-- idempotency keys, refunds whose payment never came, and the ledger, whose sums are carried forward. Paid orders, captured payments
-- and the rows they refer to are the shop's books and stay, and so do rejected webhooks that stand.
--
-- Choose an age longer than the retries of the provider and of operators: a webhook or an
-- operation that repeats a deleted one is taken as new. The highest ids that were removed are
-- kept. Readers of the ledger lose what they have not read. Returns what was deleted, and how
-- many. Refuses SA009 invalid_request, also above READ COMMITTED, where a payment newer than the
-- snapshot is not seen.
create or replace function flashsale.purge(p_older_than interval)
returns table (removed text, rows bigint)
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_before     timestamptz;
  v_order_ids  bigint[];
  v_hold_ids   bigint[];
  v_payments   bigint;
  v_holds      bigint;
  v_operations bigint;
  v_events     bigint;
  v_rejected   bigint;
  v_refunds    bigint;
  v_order_id   bigint;
  v_event_id   bigint;
begin
  -- In seconds: the length of a month depends on the date it is counted from.
  if p_older_than is null or extract(epoch from p_older_than) not between 0 and 3155760000 then
    perform flashsale_data.raise_refusal('SA009', 'An age is 0 to 100 years.');
  elsif flashsale_data.keeps_snapshot() then -- guard: purge-isolation
    perform flashsale_data.raise_refusal('SA009', 'A purge runs at READ COMMITTED.');
  end if;
  -- One purge at a time: two would wait for each other's events.
  perform pg_advisory_xact_lock(hashtext('flashsale.purge'), 0);
  v_before := clock_timestamp() - extract(epoch from p_older_than) * interval '1 second';

  -- Locked rows are in use, so not finished; a purge waits for no row.
  v_order_ids := array(
    select o.order_id from flashsale_data.orders o
    where o.status = 'cancelled' and o.created_at <= v_before
    for update skip locked);
  -- Read once the orders are locked, so that no payment can come in for them. The wait of a
  -- stored webhook is ended by the sweep, which counts it: its order waits for the next purge.
  v_order_ids := array(
    select unnest(v_order_ids) except
    select p.order_id from flashsale_data.payments p
    where p.order_id = any (v_order_ids) and (
      p.status = 'success' -- guard: captured-not-purged
      or p.result = 'stored')); -- guard: stored-not-purged
  delete from flashsale_data.payments p where p.order_id = any (v_order_ids);
  get diagnostics v_payments = row_count;
  with gone as (
    delete from flashsale_data.orders o where o.order_id = any (v_order_ids) returning o.hold_id, o.order_id
  )
  select array_agg(g.hold_id), max(g.order_id) into v_hold_ids, v_order_id from gone g;
  v_hold_ids := v_hold_ids || array(
    select h.hold_id from flashsale_data.holds h
    where h.status in ('expired', 'released') and h.placed_at <= v_before
    for update skip locked);
  delete from flashsale_data.holds h where h.hold_id = any (v_hold_ids);
  get diagnostics v_holds = row_count;
  -- Claims that a sweep has found locked.
  delete from flashsale_data.claims c
  where c.hold_id in (
    select k.hold_id from flashsale_data.claims k where k.ends_at <= v_before for update skip locked);

  delete from flashsale_data.rejected_webhooks r
  where r.webhook_id in (
    select w.webhook_id from flashsale_data.rejected_webhooks w
    where w.dismissed_at <= v_before -- guard: standing-not-purged
      and w.last_seen_at <= v_before
    for update skip locked);
  get diagnostics v_rejected = row_count;

  delete from flashsale_data.operations o where o.done_at <= v_before;
  get diagnostics v_operations = row_count;

  with gone as (
    delete from flashsale_data.awaited_payments a
    where a.payment_key in (
      select w.payment_key from flashsale_data.awaited_payments w
      where w.first_refund_at <= v_before -- guard: awaited-not-purged
      for update skip locked)
    returning a.payment_key
  )
  delete from flashsale_data.refunds r using gone g where r.payment_key = g.payment_key;
  get diagnostics v_refunds = row_count;

  -- A prefix of the ledger, up to the first event that is too young.
  with gone as (
    delete from flashsale_data.events e
    where e.event_id < coalesce(
      (select min(y.event_id) from flashsale_data.events y where y.at > v_before), 9223372036854775807)
    returning e.event_id, e.product_id, e.available_delta
  ), carried as (
    insert into flashsale_data.ledger_carried as l (product_id, available_delta)
    select g.product_id, sum(g.available_delta) from gone g where g.product_id is not null group by 1
    -- guard: ledger-carried
    on conflict (product_id) do update set available_delta = l.available_delta + excluded.available_delta
  )
  select count(*), max(g.event_id) into v_events, v_event_id from gone g;
  -- So that sequences_behind() sees a copy whose sequences stand behind what is no longer there.
  insert into flashsale_data.purge_state as s (order_id, event_id)
  select coalesce(v_order_id, 0), coalesce(v_event_id, 0)
  where v_order_id is not null or v_event_id is not null
  on conflict (singleton) do update
    set
      order_id = greatest(s.order_id, excluded.order_id), -- guard: purge-state
      event_id = greatest(s.event_id, excluded.event_id);

  return query values
    ('orders', cardinality(v_order_ids)::bigint), ('payments', v_payments),
    ('holds', v_holds), ('operations', v_operations), ('events', v_events),
    ('rejected_webhooks', v_rejected), ('refunds', v_refunds);
end
$$;
comment on function flashsale.purge(interval) is 'Deletes what is finished and older; the shop''s books stay';
revoke execute on function flashsale.purge(interval) from public;
grant execute on function flashsale.purge(interval) to flashsale_ops;
