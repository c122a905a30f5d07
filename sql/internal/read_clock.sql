-- The time by which the next statement judges rows that it reads without a lock. Never newer
-- than that statement's snapshot: by a newer time a hold would read as expired although an
-- order, which the snapshot does not show, has used it in time. At READ COMMITTED this is the
-- clock, since the next statement takes a snapshot of its own; above it, the start of the
-- transaction, which is before its snapshot.
create or replace function flashsale_data.read_clock()
returns timestamptz
language sql volatile
as $$
  -- guard: clock-of-snapshot
  select case when flashsale_data.keeps_snapshot() then transaction_timestamp() else clock_timestamp() end;
$$;
comment on function flashsale_data.read_clock() is 'A time that is not newer than the next statement''s snapshot';
