-- What /readyz reports beyond a reachable database: which sql/ is loaded, and whether the
-- sweep runs. Answers are exact without a scheduler; lapsed holds and overdue orders are
-- recorded later.
--
--   scheduler  alive: a sweep has succeeded in the last two periods of its schedule, or it was
--              scheduled then; dead: none has, because pg_cron does not run it or its runs fail;
--              not_scheduled; not_installed
create or replace function flashsale.readiness(
  out schema_version text, out schema_digest text, out scheduler text, out scheduler_detail text)
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_scheduler flashsale_data.scheduler;
  v_loaded    boolean;
  v_period    interval;
begin
  select s.version, s.digest into schema_version, schema_digest from flashsale_data.schema_state s;
  select * into v_scheduler from flashsale_data.scheduler;
  -- Only a loaded pg_cron hides its setting from the owner. One that can be read but is not
  -- listed is a line in postgresql.conf without the extension.
  begin
    perform current_setting('cron.database_name', true);
    v_loaded := exists (select from pg_settings p where p.name = 'cron.database_name');
  exception when insufficient_privilege then
    v_loaded := true;
  end;
  -- pg_cron runs a job every so many seconds (from 1.5 on), or by a crontab line: every minute.
  v_period := case when v_scheduler.schedule ~ '^\d+ seconds$' then v_scheduler.schedule::interval
                   else interval '1 minute' end;
  if not v_loaded then
    scheduler := 'not_installed';
    scheduler_detail := 'pg_cron is not in shared_preload_libraries.';
  elsif v_scheduler.schedule is null then
    scheduler := 'not_scheduled';
    scheduler_detail := 'No job sweeps this database; run flashsale migrate.';
  elsif greatest(v_scheduler.last_run_at, v_scheduler.scheduled_at)
        < flashsale_data.read_clock() - 2 * v_period then  -- guard: scheduler-periods
    scheduler := 'dead';
    scheduler_detail := case
      when v_scheduler.last_run_at is null
        then format('Scheduled %s, and no run has succeeded yet.', v_scheduler.schedule)
      else format('Scheduled %s, and no run has succeeded since %s.', v_scheduler.schedule, v_scheduler.last_run_at)
    end;
  else
    scheduler := 'alive';
    scheduler_detail := format('Scheduled %s, last run at %s.', v_scheduler.schedule,
      coalesce(v_scheduler.last_run_at::text, 'no time yet'));
  end if;
end
$$;
comment on function flashsale.readiness() is 'Which sql/ is loaded, and whether the sweep runs';
revoke execute on function flashsale.readiness() from public;
grant execute on function flashsale.readiness() to flashsale_api;
