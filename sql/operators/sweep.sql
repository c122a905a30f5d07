-- The job that pg_cron runs: expire_due() until nothing is due, in short transactions, for at
-- most 20 seconds; one long job would delay all others of pg_cron. Runs with its caller's
-- rights: a procedure that is security definer or has settings of its own cannot commit. Each
-- transaction records itself: a sweep that fails has not run, and one that runs for long has. The
-- transactions are at READ COMMITTED, whatever the database or the role has by default: above it
-- they would fail in a sale.
create or replace procedure flashsale.sweep()
language plpgsql
as $$
declare
  v_until timestamptz := clock_timestamp() + interval '20 seconds';
  v_count int;
begin
  commit;
  loop
    set transaction isolation level read committed; -- guard: sweep-isolation
    v_count := flashsale.expire_due(1000);
    -- Last: two sweeps at once meet in this row, and the other one has only to commit.
    perform flashsale.record_sweep();  -- guard: sweep-recorded
    commit;
    exit when v_count = 0 or clock_timestamp() >= v_until;
  end loop;
end
$$;
comment on procedure flashsale.sweep() is 'expire_due() until nothing is due; the job that pg_cron runs';
revoke execute on procedure flashsale.sweep() from public;
grant execute on procedure flashsale.sweep() to flashsale_ops;
