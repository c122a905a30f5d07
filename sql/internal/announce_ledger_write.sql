-- Every writer calls this before it draws an event id. It takes a shared advisory lock whose
-- number is the last id drawn so far, which read_events() sees while this transaction is in
-- progress. This transaction's ids are higher: a reader that stops at the lowest announced id
-- never passes an event that commits late. The lock is never taken exclusively, so no
-- transaction waits for it.
create or replace function flashsale_data.announce_ledger_write()
returns void
language sql volatile
as $$
  select pg_advisory_xact_lock_shared(
    hashtext('flashsale.ledger'), -- guard: ledger-announcement
    (coalesce(pg_sequence_last_value('flashsale_data.event_ids'), 0) % 2147483648)::int);
$$;
comment on function flashsale_data.announce_ledger_write() is
  'Announces to read_events() that this transaction is about to append events';
