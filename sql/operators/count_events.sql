-- How many events of each kind each product has seen in the last 10 seconds: how
-- fast a sale goes. Those of test products are left out unless p_tests. The ledger has
-- no index on time: from its end this steps back 1,000 ids at a time until an event is
-- too old, so it costs what those seconds held, however long the ledger is. Takes no
-- lock.
create or replace function flashsale.count_events(p_tests boolean default false)
returns table (product_id bigint, kind text, events bigint)
language sql stable security definer
set search_path = pg_catalog, pg_temp
-- planner settings: docs/design.md
set plan_cache_mode = force_generic_plan set jit = off
set enable_seqscan = off set enable_bitmapscan = off set enable_material = off
set enable_hashjoin = off set enable_mergejoin = off
as $$
  with recursive step (event_id, at) as (
    (select e.event_id, e.at from flashsale_data.events e order by e.event_id desc limit 1)
    union all
    select step.event_id - 1000,
           (select e.at from flashsale_data.events e
            where e.event_id <= step.event_id - 1000
            order by e.event_id desc limit 1)
    from step
    where step.at > (select clock.now from flashsale_data.statement_clock clock) - interval '10 seconds'
  )
  select e.product_id, e.kind, count(*)
  from flashsale_data.events e
  where e.event_id >= (select min(step.event_id) from step)
    and e.at > (select clock.now from flashsale_data.statement_clock clock) - interval '10 seconds'
    and (p_tests or (e.product_id in (
      -- guard: tests-not-in-rates
      select t.product_id from flashsale_data.products t where t.is_test)) is not true)
  group by 1, 2;
$$;
comment on function flashsale.count_events(boolean) is 'How many events of each kind each product has seen in 10 seconds';
revoke execute on function flashsale.count_events(boolean) from public;
grant execute on function flashsale.count_events(boolean) to flashsale_ops;
