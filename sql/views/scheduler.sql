create or replace view flashsale.scheduler as
select s.schedule, s.scheduled_at, s.last_run_at, due.since as due_since,
       coalesce(clock.now - due.since, '0') as lag,
       state.scheduler as status, state.scheduler_detail as detail, s.failed_at, s.failure
from flashsale_data.scheduler s
cross join flashsale_data.statement_clock clock
cross join flashsale.readiness() state
cross join lateral (
  select min(l.lapses_at) as since
  from flashsale_data.lapses l
  where l.lapses_at <= clock.now and (l.held > 0 or l.awaiting > 0)) due;
comment on view flashsale.scheduler is 'Whether the sweep runs, when it last succeeded, whether the last run failed, and how long the oldest lapsed hold or order has waited for it';
revoke all on flashsale.scheduler from public;
grant select on flashsale.scheduler to flashsale_ops;
