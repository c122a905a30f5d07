-- The time by which the next statement judges the rows that it reads without a
-- lock. It is never newer than that statement's snapshot: a newer time would call
-- a hold expired although an order used it in time, unseen by the snapshot.
-- At READ COMMITTED the clock, since the next statement takes a snapshot of its own;
-- above it the start of the transaction, which is before its snapshot.
create or replace function flashsale_data.read_clock()
returns timestamptz
language sql volatile
as $$
  -- guard: clock-of-snapshot
  select case when flashsale_data.keeps_snapshot() then transaction_timestamp() else clock_timestamp() end;
$$;
comment on function flashsale_data.read_clock() is 'A time that is not newer than the next statement''s snapshot';
