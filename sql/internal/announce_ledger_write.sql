-- Every writer calls this before it draws an event id. It leaves a mark that
-- read_events() can see while this transaction is in progress: the last id drawn
-- so far, as a shared advisory lock. This transaction's ids are higher, so a
-- reader that stops at the lowest mark never passes a late commit.
-- Nobody ever takes the lock exclusively: nobody waits for it.
create or replace function flashsale_data.announce_ledger_write()
returns void
language sql volatile
as $$
  select pg_advisory_xact_lock_shared(
    hashtext('flashsale.ledger'), -- guard: ledger-mark
    (coalesce(pg_sequence_last_value('flashsale_data.event_ids'), 0) % 2147483648)::int);
$$;
comment on function flashsale_data.announce_ledger_write() is
  'Marks, for read_events(), that this transaction is about to append events';
