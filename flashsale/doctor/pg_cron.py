"""pg_cron and its jobs."""

from collections.abc import Iterator
from datetime import timedelta

import psycopg
from psycopg import errors
from psycopg.conninfo import make_conninfo

from flashsale.database.connection import Connection, admin_url, connect, fetch_row, fetch_value, quote_ident
from flashsale.database.pg_cron import EARLIER_NAMES, JOB_NAMES, SWEEP, cron_database, jobs
from flashsale.database.roles import inherit
from flashsale.doctor.finding import MIGRATE, Finding, Findings
from flashsale.durations import format_duration

STALE = timedelta(minutes=3)
"""of a lag, or without a run of another scheduler, which has no known period"""


def pg_cron(conn: Connection) -> Findings:
    """Whether it is installed, loaded, running and on schedule; each only if the previous one holds."""
    otherwise = "or call flashsale.sweep() every minute from another scheduler"
    available = conn.execute("select 1 from pg_available_extensions where name = 'pg_cron'").fetchone()
    try:
        database = cron_database(conn)
    except errors.InsufficientPrivilege:
        detail = f"not checked: role {conn.info.user} cannot read pg_cron's settings"
        yield Finding("pg_cron", "warning", detail, f"grant pg_read_all_settings to {_me(conn)}")
        return
    last_run_at, swept, on_time, lag, failed_at, failure = fetch_row(
        conn,
        "select last_run_at, swept, status = 'alive' or schedule is null and swept, lag, failed_at, failure"
        " from flashsale.scheduler,"
        " coalesce(failed_at is null and last_run_at > now() - %(stale)s, false) as swept",
        {"stale": STALE},
    )

    if not available or not database:
        if failed_at:
            detail = f"pg_cron is not loaded, and the last sweep failed: {failure}"
            yield Finding("pg_cron", "failed", detail, _CORRECT)
        elif swept:
            yield Finding("pg_cron", "ok", "pg_cron is not loaded; another scheduler runs the sweep")
        elif not available:
            package = f"postgresql-{conn.info.server_version // 10000}-cron"
            remedy = f"install its package (Debian: {package}), load it, and migrate; {otherwise}"
            yield Finding("pg_cron", "warning", "pg_cron is not installed: the sweep does not run", remedy)
        else:
            remedy = f"set shared_preload_libraries = 'pg_cron', restart PostgreSQL, {MIGRATE}; {otherwise}"
            yield Finding("pg_cron", "warning", "pg_cron is not loaded: the sweep does not run", remedy)
        return
    if not fetch_value(conn, "select has_database_privilege(%s::text, 'connect')", (database,)):
        name = quote_ident(conn, database)
        detail = f"not checked: role {conn.info.user} cannot connect to pg_cron's database {database}"
        yield Finding("pg_cron", "warning", detail, f"grant connect on database {name} to {_me(conn)}")
        return
    try:
        with connect("doctor", make_conninfo(admin_url(), dbname=database)) as cron:
            findings = list(_check_jobs(cron, conn, swept=swept))
    except psycopg.OperationalError as error:
        detail = f"pg_cron's database {database} cannot be reached: {' '.join(str(error).split())}"
        yield Finding("pg_cron", "failed", detail, _reach(conn, database))
        return
    launchers, hidden = fetch_row(conn, _LAUNCHERS)
    if findings:
        yield from findings
    elif not launchers and not hidden:
        yield Finding("pg_cron", "failed", "pg_cron's launcher is not running", "restart PostgreSQL")
    elif not on_time or lag > STALE:
        detail = (
            f"the last sweep was at {last_run_at:%Y-%m-%d %H:%M:%SZ}" if last_run_at else "no sweep has run"
        )
        remedy = "see flashsale cron status, and PostgreSQL's log"
        if failed_at:
            detail, remedy = f"the last sweep failed: {failure}", _CORRECT
        if lag:
            detail += f"; {format_duration(lag)} behind"
        yield Finding("pg_cron", "failed", detail, remedy)
    else:
        last_run = f"last sweep at {last_run_at:%H:%M:%SZ}" if last_run_at else "no sweep yet"
        yield Finding("pg_cron", "ok", f"installed, loaded, running and on schedule; {last_run}")


_CORRECT = f"correct what the message names; if a function is missing, {MIGRATE}. The next run clears this"
_LAUNCHERS = """
    select count(*) filter (where backend_type = 'pg_cron launcher'),
           count(*) filter (where backend_type is null)
      from pg_stat_activity
"""
_JOBS = """
    select j.jobid, j.username, j.active, j.command, j.database, r.status, r.return_message,
           coalesce(r.end_time > now() - interval '1 day', r.status is not null)
      from cron.job j
      left join lateral (
        -- A run that failed to connect has no times.
        select d.status, d.return_message, d.end_time from cron.job_run_details d
         where d.jobid = j.jobid and d.status in ('succeeded', 'failed')
         order by d.runid desc limit 1) r on true
     where j.jobname = %s
     order by j.username <> 'flashsale_sweep', j.jobid
"""
_OWNER_DROPPED = """
    select j.jobid, coalesce(j.jobname, j.jobid::text), j.username, substr(j.jobname, length(p.name) + 1),
           exists (select from pg_database d where d.datname = substr(j.jobname, length(p.name) + 1))
      from cron.job j left join unnest(%(names)s::text[]) p (name) on starts_with(j.jobname, p.name)
     where not exists (select from pg_roles r where r.rolname = j.username)
     order by j.jobid
"""
_ORPHANS = """
    select j.jobname, j.database, substr(j.jobname, length(p.name) + 1) = %(database)s
      from cron.job j join unnest(%(names)s::text[]) p (name) on starts_with(j.jobname, p.name)
     where not exists (select from pg_database d where d.datname = substr(j.jobname, length(p.name) + 1))
        or p.name = any (%(earlier)s::text[]) and substr(j.jobname, length(p.name) + 1) = %(database)s
     order by j.jobid
"""
_ALL_NAMES = [*JOB_NAMES, *EARLIER_NAMES]


def _check_jobs(cron: Connection, conn: Connection, *, swept: bool) -> Findings:
    database, home = conn.info.dbname, cron.info.dbname
    if not cron.execute("select 1 from pg_extension where extname = 'pg_cron'").fetchone():
        yield Finding("pg_cron", "failed", f"extension pg_cron is missing in database {home}", MIGRATE)
        return
    if not fetch_value(cron, "select has_schema_privilege('cron', 'usage')"):
        detail = f"not checked: role {cron.info.user} cannot see the jobs of pg_cron"
        remedy = f"in database {home}: grant usage on schema cron to {_me(conn)}"
        yield Finding("pg_cron", "warning", detail, remedy)
        return
    yield from _check_owners(cron, database)
    for name, command, where in jobs(database, home):
        found = cron.execute(_JOBS, (name,)).fetchall()
        if not found:
            # A role that is no superuser sees its own jobs only: another role's may run the sweep.
            if not (swept and fetch_value(cron, "select row_security_active('cron.job')")):
                yield Finding("pg_cron", "failed", f"job '{name}' is missing", MIGRATE)
            continue
        job_id, owner, active, actual_command, actual_where, status, message, recent = found[0]
        missing_rights = list(_owner_rights(conn, cron, owner, command))
        if len(found) > 1:
            owners = ", ".join(job[1] for job in found)
            detail = f"job '{name}' is scheduled {len(found)} times, by {owners}"
            yield Finding("pg_cron", "warning", detail, MIGRATE)
        if not active:
            remedy = f"in database {home}: select cron.alter_job({job_id}, active => true)"
            yield Finding("pg_cron", "failed", f"job '{name}' is not active", remedy)
        elif (actual_command, actual_where) != (command, where):
            detail = f"job '{name}' has another command: {actual_command} in {actual_where}"
            yield Finding("pg_cron", "failed", detail, MIGRATE)
        elif missing_rights:
            for lacks, remedy in missing_rights:
                yield Finding(
                    "pg_cron", "failed", f"job '{name}' runs as role {owner}, which {lacks}", remedy
                )
        elif status == "failed" and recent:
            yield from _failed(cron, name, owner, " ".join((message or "").split()))
    for name, where, calls_earlier in cron.execute(
        _ORPHANS, {"names": _ALL_NAMES, "earlier": list(EARLIER_NAMES), "database": database}
    ):
        reason = "an earlier version" if calls_earlier else f"database {where}, which does not exist"
        yield Finding("pg_cron", "warning", f"job '{name}' is of {reason}", MIGRATE)


def _check_owners(cron: Connection, database: str) -> Findings:
    """Jobs whose owner was dropped: each ends the launcher, and with it all jobs of the server."""
    # The database is null if the job is not of flashsale.
    for job_id, name, owner, swept, exists in cron.execute(_OWNER_DROPPED, {"names": _ALL_NAMES}):
        detail = f"job '{name}' of role {owner}, which does not exist, keeps pg_cron from running"
        remedy = f"in database {cron.info.dbname}: select cron.unschedule({job_id})"
        if swept == database or (swept is not None and not exists):
            remedy = MIGRATE
        elif swept is not None:
            detail += f"; it sweeps database {swept}, where flashsale migrate schedules it again"
        yield Finding("pg_cron", "failed", detail, remedy)


def _owner_rights(conn: Connection, cron: Connection, owner: str, command: str) -> Iterator[tuple[str, str]]:
    """What the role that runs a job lacks for it, and the statement that grants it."""
    facts = conn.execute(
        """
        select quote_ident(r.rolname), r.rolcanlogin,
               has_database_privilege(r.oid, current_database(), 'connect'),
               has_database_privilege(r.oid, %(home)s::text, 'connect'),
               quote_ident(current_database()), quote_ident(%(home)s::text),
               has_schema_privilege(r.oid, 'flashsale', 'usage')
                 and has_function_privilege(r.oid, 'flashsale.sweep()', 'execute')
                 and has_function_privilege(r.oid, 'flashsale.expire_due(int)', 'execute'),
               pg_has_role(r.oid, 'flashsale_ops', 'member')
          from pg_roles r where r.rolname = %(owner)s
        """,
        {"owner": owner, "home": cron.info.dbname},
    ).fetchone()
    if facts is None:
        return
    role, may_log_in, may_connect, may_connect_home, database, home, may_sweep, is_member = facts
    is_sweep = command == SWEEP
    if not may_log_in:
        yield "cannot log in", f"alter role {role} login"
    where, may_enter = (database, may_connect) if is_sweep else (home, may_connect_home)
    if not may_enter:
        yield f"cannot connect to database {where}", f"grant connect on database {where} to {role}"
    if is_sweep and not may_sweep:
        version = conn.info.server_version
        remedy = inherit(role, "flashsale_ops", version) if is_member else f"grant flashsale_ops to {role}"
        yield "may not call flashsale.sweep()", remedy
    if not is_sweep and not fetch_value(
        cron, "select has_schema_privilege(%s::text, 'cron', 'usage')", (owner,)
    ):
        yield "may not use schema cron", f"in database {home}: grant usage on schema cron to {role}"


def _failed(cron: Connection, name: str, owner: str, message: str) -> Findings:
    detail = f"job '{name}' failed: {message}"
    if message == "connection failed" and fetch_value(
        cron, "select coalesce(current_setting('cron.use_background_workers', true), 'off') <> 'on'"
    ):
        remedy = f"alter system set cron.use_background_workers = on, restart PostgreSQL, {MIGRATE}"
    else:
        remedy = _CORRECT
    yield Finding("pg_cron", "failed", detail, remedy)


def _reach(conn: Connection, database: str) -> str:
    """How pg_cron's database can be reached again."""
    row = conn.execute(
        "select datallowconn, quote_ident(datname) from pg_database where datname = %s", (database,)
    ).fetchone()
    if row is None:
        return f"alter system set cron.database_name = 'postgres', restart PostgreSQL, {MIGRATE}"
    is_open, name = row
    if not is_open:
        return f"alter database {name} allow_connections true"
    return f"let pg_hba.conf admit role {conn.info.user} to database {database}"


def _me(conn: Connection) -> str:
    return str(fetch_value(conn, "select quote_ident(current_user)"))
