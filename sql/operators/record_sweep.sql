-- Records that the sweep has succeeded, for readiness().
create or replace function flashsale.record_sweep()
returns void
language sql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
  update flashsale_data.scheduler set last_run_at = clock_timestamp();
$$;
comment on function flashsale.record_sweep() is 'Records that the sweep has succeeded, for readiness()';
revoke execute on function flashsale.record_sweep() from public;
grant execute on function flashsale.record_sweep() to flashsale_ops;
