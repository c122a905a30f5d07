"""Schedules flashsale.sweep() in pg_cron.

The sweep is housekeeping: units of a lapsed hold are available from the instant it expires, whether or not
the sweep has run. The job marks lapsed rows, and so keeps tables and lookups small.
"""

import re
from contextlib import suppress

import psycopg
from psycopg import errors, sql
from psycopg.conninfo import make_conninfo

from flashsale.database.connection import Connection, fetch_row, fetch_value

# A member of flashsale_ops with no other rights. pg_cron connects as this role, so it can log in; it has no
# password, so password authentication fails for everyone else.
JOB_ROLE = "flashsale_sweep"

SWEEP = "call flashsale.sweep()"
# pg_cron keeps its run history forever. Row security limits the role to its own runs.
PURGE_RUNS = "delete from cron.job_run_details where end_time < now() - interval '1 day'"

_NOT_SCHEDULED = (
    "WARNING: nothing sweeps lapsed holds and overdue orders: {}. Stock stays exact, but rows accumulate;"
    " or call flashsale.sweep() every minute from another scheduler."
)


def schedule(conn: Connection, url: str) -> str:
    """Schedule the jobs for the database of `conn`, replacing existing ones; returns a message.

    pg_cron lives in one database of the server, which is reached by `url` with another dbname.
    """
    try:
        database = cron_database(conn)
    except errors.InsufficientPrivilege as error:
        return _not_scheduled(
            conn,
            f"role {conn.info.user} cannot read pg_cron's settings: {error.diag.message_primary}."
            f" Migrate as a superuser, or have one run: grant pg_read_all_settings to {conn.info.user};",
        )
    if not database:
        return _not_scheduled(
            conn,
            "pg_cron is not loaded on this server. Install its package (on Debian postgresql-N-cron),"
            " set shared_preload_libraries = 'pg_cron' and cron.database_name, restart, and migrate again",
        )
    try:
        with psycopg.connect(make_conninfo(url, dbname=database), autocommit=True) as cron:
            interval = _schedule(cron, conn.info.dbname)
    except errors.InsufficientPrivilege as error:
        return _not_scheduled(
            conn,
            f"role {conn.info.user} cannot schedule jobs: {error.diag.message_primary}."
            f" Migrate once as a superuser, or have one create extension pg_cron in database {database}"
            " and grant usage on schema cron and execute on all functions in it to that role",
        )
    except psycopg.OperationalError as error:
        return _not_scheduled(conn, f"cannot connect to pg_cron's database {database}: {error}")
    _record(conn, interval)
    return f"scheduled {SWEEP.removeprefix('call ')} at '{interval}'"


def unschedule(conn: Connection, url: str) -> None:
    """Remove the jobs of the database of `conn`."""
    database = cron_database(conn)
    if database:
        with psycopg.connect(make_conninfo(url, dbname=database), autocommit=True) as cron:
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
    return [
        (f"flashsale sweep {database}", SWEEP, database),
        (f"flashsale forget runs {database}", PURGE_RUNS, cron_database),
    ]


def _schedule(cron: Connection, database: str) -> str:
    if not fetch_value(cron, "select exists (select from pg_extension where extname = 'pg_cron')"):
        cron.execute("create extension if not exists pg_cron")
    version = fetch_value(cron, "select extversion from pg_extension where extname = 'pg_cron'")
    interval = "5 seconds" if _parse_version(version) >= (1, 5) else "* * * * *"
    user = _job_user(cron)
    with cron.transaction():
        _unschedule(cron, database, keep_user=user)
        for name, command, where in jobs(database, cron.info.dbname):
            at = interval if command == SWEEP else "17 * * * *"
            cron.execute(
                "select cron.schedule_in_database(%s, %s, %s, %s, %s)", (name, at, command, where, user)
            )
    return interval


def _job_user(cron: Connection) -> str:
    """The role that runs the jobs: JOB_ROLE if this role can schedule for another, else this role."""
    user, is_superuser = fetch_row(
        cron, "select current_user::text, rolsuper from pg_roles where rolname = current_user"
    )
    if not is_superuser:
        return str(user)
    # Without background workers pg_cron logs in over TCP. Only this role is known to be able to do that.
    if fetch_value(cron, "select current_setting('cron.use_background_workers', true)") != "on":
        return str(user)
    if not fetch_value(cron, "select exists (select from pg_roles where rolname = %s)", (JOB_ROLE,)):
        # The migration of another database of this server may create it concurrently.
        with suppress(errors.DuplicateObject, errors.UniqueViolation):
            cron.execute(sql.SQL("create role {} login").format(sql.Identifier(JOB_ROLE)))
    cron.execute(sql.SQL("grant flashsale_ops to {}").format(sql.Identifier(JOB_ROLE)))
    cron.execute(sql.SQL("grant usage on schema cron to {}").format(sql.Identifier(JOB_ROLE)))
    return JOB_ROLE


def _unschedule(cron: Connection, database: str, keep_user: str | None) -> None:
    """Remove this database's jobs, except those of `keep_user`, which scheduling overwrites.

    Also the job of earlier versions: the procedure that it calls no longer exists, so every run would fail.
    """
    cron.execute(
        "select cron.unschedule(jobid) from cron.job"
        " where jobname = 'flashsale tidy ' || %(database)s"
        " or jobname in ('flashsale sweep ' || %(database)s, 'flashsale forget runs ' || %(database)s)"
        " and username is distinct from %(keep_user)s",
        {"database": database, "keep_user": keep_user},
    )


def _not_scheduled(conn: Connection, reason: str) -> str:
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
