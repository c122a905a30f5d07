-- What /readyz reports beyond a reachable database: which sql/ is loaded, whether the sweep
-- runs, and in problem why the sale cannot be served here, a sentence; null if it can. Answers
-- are exact without a scheduler; lapsed holds and overdue orders are recorded later.
--
--   scheduler  alive: a sweep has succeeded in the last two periods of its schedule, or it was
--              scheduled then; failing: the last one has failed; dead: none has run, because
--              pg_cron does not run it, cannot log in, or its role may not; not_scheduled;
--              not_installed
create or replace function flashsale.readiness(
  out schema_version text, out schema_digest text, out scheduler text, out scheduler_detail text,
  out problem text)
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_scheduler flashsale_data.scheduler;
  v_loaded    boolean;
  v_period    interval;
  v_last_run  text;
begin
  select s.version, s.digest into schema_version, schema_digest from flashsale_data.schema_state s;
  select * into v_scheduler from flashsale_data.scheduler;
  v_last_run := to_char(v_scheduler.last_run_at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"');
  -- Only a loaded pg_cron hides its setting from the owner. One that can be read but is not
  -- listed is a line in postgresql.conf without the extension.
  begin
    perform current_setting('cron.database_name', true);
    v_loaded := exists (select from pg_settings p where p.name = 'cron.database_name');
  exception when insufficient_privilege then
    v_loaded := true;
  end;
  -- pg_cron runs a job every so many seconds (from 1.5 on), or by a crontab line: every minute.
  v_period := case when v_scheduler.schedule ~ '^[0-9]+ seconds$' then v_scheduler.schedule::interval
                   else interval '1 minute' end;
  if not v_loaded then
    scheduler := 'not_installed';
    scheduler_detail := 'pg_cron is not in shared_preload_libraries.';
  elsif v_scheduler.schedule is null then
    scheduler := 'not_scheduled';
    scheduler_detail := 'No job sweeps this database; run flashsale migrate.';
  -- What was scheduled again is given its two periods again.
  elsif v_scheduler.failed_at > coalesce(v_scheduler.scheduled_at, '-infinity') then -- guard: failed-sweep
    scheduler := 'failing';
    scheduler_detail := format('Scheduled %s, and the run at %s failed: %s', v_scheduler.schedule,
      to_char(v_scheduler.failed_at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"'), v_scheduler.failure);
  elsif greatest(v_scheduler.last_run_at, v_scheduler.scheduled_at)
        < flashsale_data.read_clock() - 2 * v_period then  -- guard: scheduler-periods
    scheduler := 'dead';
    scheduler_detail := case
      when v_scheduler.last_run_at is null
        then format('Scheduled %s, and no run has succeeded yet.', v_scheduler.schedule)
      else format('Scheduled %s, and no run has succeeded since %s.', v_scheduler.schedule, v_last_run)
    end;
  else
    scheduler := 'alive';
    scheduler_detail := format('Scheduled %s, last run at %s.', v_scheduler.schedule,
      coalesce(v_last_run, 'no time yet'));
  end if;
  problem := coalesce(
    flashsale_data.primary_error(), -- guard: ready-on-primary
    case when current_setting('transaction_read_only') = 'on'
         then 'Transactions are read-only: default_transaction_read_only is on.' end, -- guard: ready-to-write
    (select string_agg(format('%s stands at %s, behind %s', b.sequence_name, b.last_id, b.highest_id), '; ')
            || '. Ids would be given out again; see flashsale doctor.'
     from flashsale_data.sequences_behind() b)); -- guard: ready-sequences
end
$$;
comment on function flashsale.readiness() is 'Which sql/ is loaded, whether the sweep runs, and why the sale cannot be served';
revoke execute on function flashsale.readiness() from public;
grant execute on function flashsale.readiness() to flashsale_api;
