"""pg_cron and its jobs."""

from datetime import timedelta

from psycopg.conninfo import make_conninfo

from flashsale.database.connection import Connection, admin_url, connect, fetch_row
from flashsale.database.pg_cron import cron_database, jobs
from flashsale.doctor.finding import MIGRATE, Finding, Findings
from flashsale.durations import format_duration

STALE = timedelta(minutes=3)
"""without a run; readiness() has the same limit"""


def pg_cron(conn: Connection) -> Findings:
    """Whether it is installed, loaded, running and on schedule; each only if the previous one holds."""
    otherwise = "or call flashsale.sweep() every minute from another scheduler"
    available = conn.execute("select 1 from pg_available_extensions where name = 'pg_cron'").fetchone()
    database = cron_database(conn)
    last_run_at, swept, on_time, lag = fetch_row(
        conn,
        "select last_run_at, coalesce(last_run_at > now() - %(stale)s, false),"
        " coalesce(greatest(last_run_at, scheduled_at) > now() - %(stale)s, false), lag"
        " from flashsale.scheduler",
        {"stale": STALE},
    )

    if not available or not database:
        if swept:
            yield Finding("pg_cron", "ok", "pg_cron is not loaded; another scheduler runs the sweep")
        elif not available:
            package = f"postgresql-{conn.info.server_version // 10000}-cron"
            remedy = f"install its package (Debian: {package}), load it, and migrate; {otherwise}"
            yield Finding("pg_cron", "warning", "pg_cron is not installed: the sweep does not run", remedy)
        else:
            remedy = f"set shared_preload_libraries = 'pg_cron', restart PostgreSQL, {MIGRATE}; {otherwise}"
            yield Finding("pg_cron", "warning", "pg_cron is not loaded: the sweep does not run", remedy)
        return
    launchers, hidden = fetch_row(conn, _LAUNCHERS)
    if not launchers and not hidden:
        yield Finding("pg_cron", "failed", "pg_cron's launcher is not running", "restart PostgreSQL")
        return
    with connect("doctor", make_conninfo(admin_url(), dbname=database)) as cron:
        findings = list(_check_jobs(cron, conn.info.dbname))
    if findings:
        yield from findings
    elif not on_time or lag > STALE:
        detail = (
            f"the last sweep was at {last_run_at:%Y-%m-%d %H:%M:%SZ}" if last_run_at else "no sweep has run"
        )
        if lag:
            detail += f"; {format_duration(lag)} behind"
        remedy = "see flashsale cron status, and PostgreSQL's log"
        yield Finding("pg_cron", "failed", detail, remedy)
    else:
        last_run = f"last sweep at {last_run_at:%H:%M:%SZ}" if last_run_at else "no sweep yet"
        yield Finding("pg_cron", "ok", f"installed, loaded, running and on schedule; {last_run}")


_LAUNCHERS = """
    select count(*) filter (where backend_type = 'pg_cron launcher'),
           count(*) filter (where backend_type is null)
      from pg_stat_activity
"""
_JOB = """
    select j.jobid, j.active, j.command, j.database, r.status, r.return_message
      from cron.job j
      left join lateral (
        select d.status, d.return_message from cron.job_run_details d
         where d.jobid = j.jobid and d.end_time is not null
         order by d.runid desc limit 1) r on true
     where j.jobname = %s
"""


def _check_jobs(cron: Connection, database: str) -> Findings:
    home = cron.info.dbname
    if not cron.execute("select 1 from pg_extension where extname = 'pg_cron'").fetchone():
        yield Finding("pg_cron", "failed", f"extension pg_cron is missing in database {home}", MIGRATE)
        return
    for name, command, where in jobs(database, home):
        job = cron.execute(_JOB, (name,)).fetchone()
        if job is None:
            yield Finding("pg_cron", "failed", f"job '{name}' is missing", MIGRATE)
            continue
        job_id, active, actual_command, actual_where, status, message = job
        if not active:
            remedy = f"in database {home}: select cron.alter_job({job_id}, active => true)"
            yield Finding("pg_cron", "failed", f"job '{name}' is not active", remedy)
        elif (actual_command, actual_where) != (command, where):
            detail = f"job '{name}' has another command: {actual_command} in {actual_where}"
            yield Finding("pg_cron", "failed", detail, MIGRATE)
        elif status == "failed":
            detail = f"job '{name}' failed: {' '.join((message or '').split())}"
            remedy = f"see PostgreSQL's log; if a function is missing, {MIGRATE}"
            yield Finding("pg_cron", "failed", detail, remedy)
