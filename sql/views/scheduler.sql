create or replace view flashsale.scheduler as
select s.schedule, s.scheduled_at, s.last_run_at, due.since as due_since,
       coalesce(statement_timestamp() - due.since, '0') as lag
from flashsale_data.scheduler s
cross join lateral (
  select min(l.lapses_at) as since
  from flashsale_data.lapses l
  where l.lapses_at <= statement_timestamp() and (l.held > 0 or l.awaiting > 0)) due;
comment on view flashsale.scheduler is 'When anybody last tidied, and how long lapsed holds and orders have waited to be marked';
revoke all on flashsale.scheduler from public;
grant select on flashsale.scheduler to flashsale_ops;
