"""Schedules flashsale.sweep() in pg_cron.

The sweep is housekeeping: units of a lapsed hold are available from the instant it expires, whether or not
the sweep has run. The job marks lapsed rows, and so keeps tables and lookups small.
"""

import re
from contextlib import suppress

import psycopg
from psycopg import errors, sql
from psycopg.conninfo import make_conninfo

from flashsale.database.connection import Connection, connect, fetch_row, fetch_value, quote_ident
from flashsale.database.roles import FINE_GRAINED, inherit

# A member of flashsale_ops with no other rights. pg_cron connects as this role, so it can log in; it has no
# password, so password authentication fails for everyone else.
JOB_ROLE = "flashsale_sweep"

SWEEP = "call flashsale.sweep()"
# pg_cron keeps its run history forever. Row security limits the role to its own runs.
PURGE_RUNS = "delete from cron.job_run_details where end_time < now() - interval '1 day'"

JOB_NAMES = ("flashsale sweep ", "flashsale forget runs ")
"""The names of the jobs of a database end with the name of it."""
EARLIER_NAMES = ("flashsale tidy ",)
"""Of jobs that call what no longer exists, so that every run would fail."""

_NOT_SCHEDULED = (
    "WARNING: nothing sweeps lapsed holds and overdue orders: {}. Stock stays exact, but rows accumulate;"
    " or call flashsale.sweep() every minute from another scheduler."
)
_NOT_CHANGED = "WARNING: the jobs of pg_cron are unchanged: {}. The sweep goes on as it was scheduled before."
_LOCK_KEY = 0x63726F6E  # "cron"
_LOCK_TIMEOUT = "10s"


def schedule(conn: Connection, url: str) -> str:
    """Schedule the jobs for the database of `conn`, replacing existing ones; returns a message.

    The message has every error of pg_cron: almost all of them have the one SQLSTATE XX000. pg_cron
    lives in one database of the server, which is reached by `url` with another dbname.
    """
    try:
        grants = missing_grants(conn, url)
        if grants:
            statements = " and ".join(grants).rstrip(";")
            return _not_scheduled(
                conn,
                f"role {conn.info.user} may not schedule it. Have a superuser run {statements}."
                " Then migrate again, or migrate as a superuser",
            )
        database = cron_database(conn)
        if not database:
            return _not_scheduled(
                conn,
                "pg_cron is not loaded on this server. Install its package (on Debian postgresql-N-cron),"
                " set shared_preload_libraries = 'pg_cron' and cron.database_name, restart it, and migrate"
                " again",
            )
        with connect("migrate", make_conninfo(url, dbname=database)) as cron:
            interval = _schedule(cron, conn)
    except psycopg.Error as error:  # guard: pg-cron-refusals
        reason = error.diag.message_primary or " ".join(str(error).split())
        return _not_scheduled(
            conn,
            f"pg_cron does not accept the job: {reason.rstrip('.')}. The schema is deployed; correct this,"
            " and migrate again",
        )
    _record(conn, interval)
    return f"scheduled {SWEEP.removeprefix('call ')} at '{interval}'"


def missing_grants(conn: Connection, url: str) -> list[str]:
    """What a superuser must run before this role can schedule the jobs, each with the database it runs in.

    :raises psycopg.Error: pg_cron's database cannot be reached
    """
    is_superuser, inherits, user, is_migrated = fetch_row(
        conn,
        "select rolsuper, exists (select from pg_roles r where pg_has_role(r.oid, 'usage')"
        "                          and r.rolname in ('flashsale_owner', 'flashsale_ops')),"
        " quote_ident(current_user), to_regrole('flashsale_ops') is not null"
        " from pg_roles where rolname = current_user",
    )
    if is_superuser:
        return []
    missing = []
    in_cron = [
        f"grant usage on schema cron to {user};",
        f"grant execute on all functions in schema cron to {user};",
    ]
    extension = "create extension if not exists pg_cron;"
    try:
        database = cron_database(conn)
    except errors.InsufficientPrivilege:
        # The database of pg_cron cannot be asked for.
        missing.append(f"grant pg_read_all_settings to {user};")
        where = "in pg_cron's database (show cron.database_name)"
        in_cron.insert(0, extension)
    else:
        if not database:
            return []
        where = f"in database {database}"
        if not fetch_value(conn, "select has_database_privilege(%s::text, 'connect')", (database,)):
            missing.append(f"grant connect on database {quote_ident(conn, database)} to {user};")
            in_cron.insert(0, extension)
        else:
            with connect("migrate", make_conninfo(url, dbname=database)) as cron:
                in_cron = _missing_in_cron(cron, extension, in_cron)
    # The job runs as this role, so it calls flashsale.sweep() by what this role inherits.
    if is_migrated and not inherits and not _inherit(conn, user):
        missing.append(f"{inherit(user, 'flashsale_ops', conn.info.server_version)};")
    return ([" ".join(missing)] if missing else []) + ([f"{where}: {' '.join(in_cron)}"] if in_cron else [])


def _missing_in_cron(cron: Connection, extension: str, grants: list[str]) -> list[str]:
    if not fetch_value(cron, "select exists (select from pg_extension where extname = 'pg_cron')"):
        return [extension, *grants]
    usage, execute = fetch_row(
        cron,
        """
        select has_schema_privilege(n.oid, 'usage'),
               (select bool_and(has_function_privilege(p.oid, 'execute')) from pg_proc p
                 where p.pronamespace = n.oid and p.proname in ('schedule_in_database', 'unschedule'))
          from pg_namespace n where n.nspname = 'cron'
        """,
    )
    return [grant for grant, has in zip(grants, (usage, execute), strict=True) if not has]


def _inherit(conn: Connection, user: str) -> bool:
    """Let this role inherit flashsale_ops, if it may; before PostgreSQL 16 that is not a grant's."""
    if conn.info.server_version < FINE_GRAINED:
        return False
    with suppress(errors.InsufficientPrivilege):
        conn.execute(inherit(user, "flashsale_ops", conn.info.server_version))
        return True
    return False


def unschedule(conn: Connection, url: str) -> None:
    """Remove the jobs of the database of `conn`."""
    database = cron_database(conn)
    if database:
        with connect("migrate", make_conninfo(url, dbname=database)) as cron:
            if fetch_value(cron, "select to_regclass('cron.job')"):
                _unschedule(cron, conn.info.dbname, keep_user=None)
    _record(conn, None)


def cron_database(conn: Connection) -> str | None:
    """The database that pg_cron lives in; None if pg_cron is not loaded.

    :raises InsufficientPrivilege: the role cannot see the setting
    """
    # pg_settings has no row if pg_cron is not loaded, even if postgresql.conf has the setting, and none if
    # the role lacks the right to see it. current_setting() raises in the latter case.
    row = conn.execute("select setting from pg_settings where name = 'cron.database_name'").fetchone()
    if row is None:
        conn.execute("select current_setting('cron.database_name', true)")
        return None
    return str(row[0])


def jobs(database: str, cron_database: str) -> list[tuple[str, str, str]]:
    """Name, command and database of each job for `database`."""
    sweep, forget = (name + database for name in JOB_NAMES)
    return [(sweep, SWEEP, database), (forget, PURGE_RUNS, cron_database)]


def _schedule(cron: Connection, conn: Connection) -> str:
    database = conn.info.dbname
    with cron.transaction():
        cron.execute("select set_config('lock_timeout', %s, true)", (_LOCK_TIMEOUT,))
        # Migrations of other databases of this server grant to the same role.
        cron.execute("select pg_advisory_xact_lock(%s)", (_LOCK_KEY,))
        if not fetch_value(cron, "select exists (select from pg_extension where extname = 'pg_cron')"):
            cron.execute("create extension if not exists pg_cron")
        version = fetch_value(cron, "select extversion from pg_extension where extname = 'pg_cron'")
        interval = "5 seconds" if _parse_version(version) >= (1, 5) else "* * * * *"
        user = _job_user(cron, database)
        _unschedule(cron, database, keep_user=user or fetch_value(cron, "select current_user::text"))
        for name, command, where in jobs(database, cron.info.dbname):
            at = interval if command == SWEEP else "17 * * * *"
            # Only a superuser may name a user, be it the caller itself.
            cron.execute(
                "select cron.schedule_in_database(%s, %s, %s, %s, %s)", (name, at, command, where, user)
            )
    return interval


def _job_user(cron: Connection, database: str) -> str | None:
    """The role that runs the jobs: JOB_ROLE if this role can schedule for another, else None: this role."""
    is_superuser, in_background = fetch_row(
        cron,
        "select rolsuper, current_setting('cron.use_background_workers', true) = 'on'"
        " from pg_roles where rolname = current_user",
    )
    # Without background workers pg_cron logs in over TCP. Only this role is known to be able to do that.
    if not is_superuser or not in_background:
        return None
    if not fetch_value(cron, "select to_regrole(%s::text) is not null", (JOB_ROLE,)):
        cron.execute(sql.SQL("create role {} login").format(sql.Identifier(JOB_ROLE)))
    cron.execute(sql.SQL("grant flashsale_ops to {}").format(sql.Identifier(JOB_ROLE)))
    may_log_in, inherits = fetch_row(
        cron,
        "select rolcanlogin, pg_has_role(oid, 'flashsale_ops', 'usage') from pg_roles where rolname = %s",
        (JOB_ROLE,),
    )
    if not may_log_in:
        cron.execute(sql.SQL("alter role {} login").format(sql.Identifier(JOB_ROLE)))
    if not inherits:
        cron.execute(inherit(JOB_ROLE, "flashsale_ops", cron.info.server_version))
    cron.execute(sql.SQL("grant usage on schema cron to {}").format(sql.Identifier(JOB_ROLE)))
    # The job keeps running after CONNECT has been revoked from PUBLIC.
    for name in (database, cron.info.dbname):
        cron.execute(
            sql.SQL("grant connect on database {} to {}").format(
                sql.Identifier(name), sql.Identifier(JOB_ROLE)
            )
        )
    return JOB_ROLE


def _unschedule(cron: Connection, database: str, keep_user: str | None) -> None:
    """Remove this database's jobs, except those of `keep_user`, which scheduling overwrites.

    Also the jobs of earlier versions, and those of databases that no longer exist. Row security limits a role
    that is no superuser to its own jobs.
    """
    cron.execute(
        """
        select cron.unschedule(jobid)
          from (select j.jobid, j.username, p.name as prefix,
                       substr(j.jobname, length(p.name) + 1) as database
                  from cron.job j join unnest(%(names)s::text[]) p (name) on starts_with(j.jobname, p.name)
               ) as ours
         where database = %(database)s
               and (prefix = any (%(earlier)s) or username is distinct from %(keep_user)s)
            or not exists (select from pg_database d where d.datname = ours.database)
        """,
        {
            "names": [*JOB_NAMES, *EARLIER_NAMES],
            "earlier": list(EARLIER_NAMES),
            "database": database,
            "keep_user": keep_user,
        },
    )


def _not_scheduled(conn: Connection, reason: str) -> str:
    with conn.transaction():
        conn.execute("set local role flashsale_owner")
        sweeps = fetch_value(
            conn,
            "select exists (select from flashsale_data.scheduler"
            " where schedule is not null and last_run_at > now() - interval '3 minutes')",
        )
    if sweeps:
        return _NOT_CHANGED.format(reason)
    _record(conn, None)
    return _NOT_SCHEDULED.format(reason)


def _record(conn: Connection, interval: str | None) -> None:
    """Store the schedule for readiness(), which cannot read pg_cron's database."""
    with conn.transaction():
        conn.execute("set local role flashsale_owner")
        conn.execute(
            "insert into flashsale_data.scheduler (schedule, scheduled_at)"
            " values (%(interval)s::text, case when %(interval)s::text is not null then now() end)"
            " on conflict (singleton) do update"
            " set schedule = excluded.schedule, scheduled_at = excluded.scheduled_at",
            {"interval": interval},
        )


def _parse_version(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", version))
