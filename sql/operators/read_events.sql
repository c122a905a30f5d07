-- The ledger after p_after (0: from the start), at most p_limit events, by ascending event_id.
-- Pass the last event_id that was processed; no event is skipped or repeated, however late its
-- transaction commits.
--
-- Event ids are drawn under the locks of what the events describe, so for one product, hold or
-- order ascending ids are what happened, in order. But a lower id can be committed after a
-- higher one. Every writer therefore announces itself before it draws an id
-- (flashsale_data.announce_ledger_write), and this function stops at the lowest announced id:
-- ids up to it belong to transactions that have ended.
--
-- Events of test products are left out unless p_tests; is_test says whether an event is one. A
-- webhook that came before its order is an event of the order's product once that is known. p_limit
-- counts the events that are returned, so that a page is empty only if nothing is left to read. The
-- next call passes again over what was left out after the last event that was returned, 0.15 s for
-- 300,000 events, until forget_tests() removes them.
--
-- Refuses SA009 invalid_request: p_limit is 1 to 10,000; and above READ COMMITTED, where
-- current announcements would bound an older snapshot. Refuses SA030 not_primary where there
-- are no announcements: on a standby, in a logical copy, and where the sequence of the ids is
-- behind the ledger, as in a copy of another kind.
create or replace function flashsale.read_events(p_after bigint, p_limit int, p_tests boolean default false)
returns table (event_id bigint, kind text, at timestamptz, product_id bigint, hold_id bigint,
               order_id bigint, payment_key text, available_delta int, data jsonb, is_test boolean)
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
  v_last   bigint;
  v_newest bigint;
  v_error  text := flashsale_data.primary_error();
begin
  if p_after is null or p_tests is null or p_limit is null or p_limit not between 1 and 10000 then
    perform flashsale_data.raise_refusal('SA009', 'Events are read after an event_id, 1 to 10,000 at a time.');
  elsif flashsale_data.keeps_snapshot() then
    perform flashsale_data.raise_refusal('SA009', 'Events are read at READ COMMITTED.');
  elsif v_error is not null then -- guard: events-on-primary
    perform flashsale_data.raise_refusal('SA030', v_error);
  end if;

  -- Before the sequence: an event that is appended later has an id that is drawn later.
  select max(e.event_id) into v_newest from flashsale_data.events e;
  -- The last id first, then the announcements: a later announcement's ids are higher.
  v_last := coalesce(pg_sequence_last_value('flashsale_data.event_ids'), 0);
  if v_newest > v_last then -- guard: events-behind-sequence
    perform flashsale_data.raise_refusal('SA030', format('The ledger ends with event %s, its sequence stands at %s: a copy.'
      ' See flashsale doctor.', v_newest, v_last));
  end if;
  -- An announcement is the lower 31 bits of an id. Of one that was made since, which bounds
  -- nothing, the difference wraps around to a large number.
  select least(v_last, min(v_last - announced.behind)) into v_last
  from pg_locks l
  cross join lateral (select (v_last - l.objid::bigint + 2147483648) % 2147483648 as behind) announced
  where l.locktype = 'advisory' and l.mode = 'ShareLock' and l.granted
    and l.database = (select d.oid from pg_database d where d.datname = current_database())
    and l.classid = (hashtext('flashsale.ledger')::bigint & 4294967295)::oid
    and l.objsubid = 2
    and announced.behind < 1073741824;

  return query
  select e.event_id, e.kind, e.at, e.product_id, e.hold_id, e.order_id, e.payment_key,
         e.available_delta, e.data, of_product.is_test
  from flashsale_data.events e
  cross join lateral (
    select case
      when e.product_id is not null then e.product_id in (
        select t.product_id from flashsale_data.products t where t.is_test)
      else coalesce((
        select t.is_test
        from flashsale_data.orders o join flashsale_data.products t on t.product_id = o.product_id
        where o.order_id = e.order_id), false) end as is_test) of_product
  where e.event_id > p_after and e.event_id <= v_last
    and (p_tests or not of_product.is_test) -- guard: test-events-left-out
  order by e.event_id
  limit p_limit;
end
$$;
comment on function flashsale.read_events(bigint, int, boolean) is
  'The ledger after an event_id, in an order that never skips a late commit';
revoke execute on function flashsale.read_events(bigint, int, boolean) from public;
grant execute on function flashsale.read_events(bigint, int, boolean) to flashsale_ops;
