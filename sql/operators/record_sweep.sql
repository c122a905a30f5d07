-- Records for readiness() that a run of the sweep has succeeded, or how it has failed.
create or replace function flashsale.record_sweep(p_failure text default null)
returns void
language sql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
  update flashsale_data.scheduler
  set last_run_at = case when p_failure is null then clock_timestamp() else last_run_at end,
      failed_at = case when p_failure is not null then clock_timestamp() end,
      failure = p_failure;
$$;
comment on function flashsale.record_sweep(text) is
  'Records for readiness() that a run of the sweep has succeeded, or how it has failed';
revoke execute on function flashsale.record_sweep(text) from public;
grant execute on function flashsale.record_sweep(text) to flashsale_ops;
