-- The job that pg_cron runs: expire_due() until nothing is due, in short transactions, for at
-- most 20 seconds; one long job would delay all others of pg_cron. Runs with its caller's
-- rights: a procedure that is security definer or has settings of its own cannot commit. Each
-- transaction records itself, so that a sweep that runs for long has run. One that fails records
-- that, in a transaction of its own, before it raises the error: pg_cron's record of it is in
-- another database, and shown to few. The transactions are at READ COMMITTED, whatever the
-- database or the role has by default: above it they would fail in a sale.
create or replace procedure flashsale.sweep()
language plpgsql
as $$
declare
  v_until    timestamptz := clock_timestamp() + interval '20 seconds';
  v_count    int;
  v_sqlstate text;
  v_message  text;
  v_detail   text;
  v_context  text;
begin
  commit;
  loop
    set transaction isolation level read committed; -- guard: sweep-isolation
    begin
      v_count := flashsale.expire_due(1000);
    exception when others or query_canceled then -- guard: failed-sweep-recorded
      get stacked diagnostics v_sqlstate = returned_sqlstate, v_message = message_text,
        v_detail = pg_exception_detail, v_context = pg_exception_context;
    end;
    -- Last: two sweeps at once meet in this row, and the other one has only to commit.
    perform flashsale.record_sweep(v_sqlstate || ': ' || v_message);  -- guard: sweep-recorded
    commit;
    if v_sqlstate is not null then
      raise exception using errcode = v_sqlstate, message = v_message,
        detail = concat_ws(E'\n', nullif(v_detail, ''), v_context);
    end if;
    exit when v_count = 0 or clock_timestamp() >= v_until;
  end loop;
end
$$;
comment on procedure flashsale.sweep() is 'expire_due() until nothing is due; the job that pg_cron runs';
revoke execute on procedure flashsale.sweep() from public;
grant execute on procedure flashsale.sweep() to flashsale_ops;
