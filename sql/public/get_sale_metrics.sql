-- Metrics of the sale for monitoring: one row each, product_id where it is a product's. Takes
-- no lock, and costs the same however large the sale has grown: stock covers the 100 newest
-- products, refunds are counted up to 10,000, and everything else is one row or the end of an
-- index. Test products are left out, but for sweep_lag and ledger_events.
--
--   total_stock = available + held + awaiting + paid
--                    units of a product at this instant
--   on_sale          1 if holds of it are placed at this instant: begun, not ended, not paused
--   starts_at, ends_at  the window of its sale, in Unix time; no row if there is none
--   refunds_due      captured payments for which money is owed back
--   inbox            webhooks stored until their order comes; inbox_limit: at most
--   rejected_webhooks  refused webhooks that may stand for captured money, at most rejected_limit
--   rejected_webhooks_dropped  deliveries ever that were not kept, for want of room
--   sweep_lag        seconds that the oldest lapsed instant has waited for sweep(); 0: none waits
--   scheduler_lag    seconds since sweep() last ran or was scheduled; no row if it never was
--   scheduler_alive  1 if readiness() reports the scheduler as alive, else 0
--   ledger_events    events ever appended, including those of calls that were rolled back
create or replace function flashsale.get_sale_metrics()
returns table (metric text, product_id bigint, value double precision)
language plpgsql security definer
set search_path = pg_catalog, pg_temp
-- planner settings: docs/design.md
set plan_cache_mode = force_generic_plan set jit = off
set enable_seqscan = off set enable_bitmapscan = off set enable_material = off
set enable_hashjoin = off set enable_mergejoin = off
as $$
#variable_conflict use_column
declare
  v_now timestamptz := flashsale_data.read_clock();
begin
  return query
  select u.metric, s.product_id, u.units::double precision
  from (select c.* from flashsale_data.stock_at(v_now) c
        where not c.is_test -- guard: tests-not-in-metrics
        order by c.product_id desc limit 100) s
  cross join lateral (
    values ('total_stock', s.total_stock), ('available', s.available), ('held', s.held),
           ('awaiting', s.awaiting), ('paid', s.paid),
           ('on_sale', (s.sale_status = 'open')::int),
           ('starts_at', extract(epoch from s.starts_at)), ('ends_at', extract(epoch from s.ends_at)))
    as u (metric, units)
  where u.units is not null;

  return query
  select 'refunds_due', null::bigint, count(*)::double precision
  from flashsale.list_refunds_due(10000);

  return query
  select u.metric, null::bigint, u.webhooks::double precision
  from flashsale_data.inbox i
  cross join flashsale_data.settings s
  cross join lateral (values ('inbox', i.stored), ('inbox_limit', s.inbox_limit)) as u (metric, webhooks);

  return query
  select u.metric, null::bigint, u.webhooks::double precision
  from flashsale_data.rejection_counter c
  cross join lateral (
    values ('rejected_webhooks', (
              select count(*) from flashsale_data.rejected_webhooks r where r.dismissed_at is null)),
           ('rejected_webhooks_dropped', c.dropped)) as u (metric, webhooks);

  return query
  select 'sweep_lag', null::bigint,
         coalesce(extract(epoch from v_now - min(l.lapses_at)), 0)::double precision
  from flashsale_data.lapses l
  where l.lapses_at <= v_now;

  return query
  select 'scheduler_lag', null::bigint,
         extract(epoch from v_now - greatest(s.last_run_at, s.scheduled_at))::double precision
  from flashsale_data.scheduler s
  where greatest(s.last_run_at, s.scheduled_at) is not null;

  return query
  select 'scheduler_alive', null::bigint, (r.scheduler = 'alive')::int::double precision
  from flashsale.readiness() r;

  return query
  select 'ledger_events', null::bigint, case when e.is_called then e.last_value else 0 end::double precision
  from flashsale_data.event_ids e;
end
$$;
comment on function flashsale.get_sale_metrics() is
  'Stock, refunds, inbox and the lag of the sweep, for monitoring';
revoke execute on function flashsale.get_sale_metrics() from public;
grant execute on function flashsale.get_sale_metrics() to flashsale_api;
