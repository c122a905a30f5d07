"""Has pg_cron call flashsale.sweep().

No answer depends on it: the units of a lapsed hold are available from its instant, swept or not. The sweep
records the hold as expired, and keeps tables and look-ups small.
"""

import re
from contextlib import suppress

import psycopg
from psycopg import errors, sql
from psycopg.conninfo import make_conninfo

# A role that may do no more than operators may. It has to be able to log in, because pg_cron connects as it;
# it has no password, so nobody else can by one.
JOB_ROLE = "flashsale_sweep"

SWEEP = "call flashsale.sweep()"
# pg_cron never forgets a run by itself. Row security shows the role its own runs only.
FORGET_RUNS = "delete from cron.job_run_details where end_time < now() - interval '1 day'"

_NOTHING_SWEEPS = (
    "WARNING: nothing sweeps lapsed holds and overdue orders: {}. Answers stay exact all the same,"
    " but rows pile up; or call flashsale.sweep() yourself every minute from any scheduler."
)


def schedule(conn: psycopg.Connection, url: str) -> str:
    """Schedule the jobs for the database of `conn`, anew if they exist; says in a sentence what came of it.

    pg_cron lives in one database of the server, which `url` reaches with another dbname.
    """
    try:
        home = cron_database(conn)
    except errors.InsufficientPrivilege as error:
        return _not_scheduled(
            conn,
            f"role {conn.info.user} may not see where pg_cron lives: {error.diag.message_primary}."
            f" Migrate as a superuser, or have one run: grant pg_read_all_settings to {conn.info.user};",
        )
    if not home:
        return _not_scheduled(
            conn,
            "pg_cron is not loaded on this server. Install its package (on Debian postgresql-N-cron),"
            " set shared_preload_libraries = 'pg_cron' and cron.database_name, restart, and migrate again",
        )
    try:
        with psycopg.connect(make_conninfo(url, dbname=home), autocommit=True) as cron:
            when = _schedule(cron, conn.info.dbname)
    except errors.InsufficientPrivilege as error:
        return _not_scheduled(
            conn,
            f"role {conn.info.user} may not schedule: {error.diag.message_primary}."
            f" Migrate once as a superuser, or let one create extension pg_cron in database {home}"
            " and grant usage on schema cron and execute on all functions in it to that role",
        )
    except psycopg.OperationalError as error:
        return _not_scheduled(conn, f"cannot reach pg_cron's database {home}: {error}")
    _record(conn, when)
    return f"scheduled {SWEEP.removeprefix('call ')} at '{when}'"


def unschedule(conn: psycopg.Connection, url: str) -> None:
    """Take the jobs of the database of `conn` away again."""
    home = cron_database(conn)
    if home:
        with psycopg.connect(make_conninfo(url, dbname=home), autocommit=True) as cron:
            if cron.execute("select to_regclass('cron.job')").fetchone()[0]:
                _unschedule(cron, conn.info.dbname, keep_user=None)
    _record(conn, None)


def cron_database(conn: psycopg.Connection) -> str | None:
    """The database pg_cron lives in; None if it is not loaded."""
    # Unlike current_setting(), this shows nothing if only a line in postgresql.conf is left of it.
    found = conn.execute("select setting from pg_settings where name = 'cron.database_name'").fetchone()
    if not found:
        # Or if we may not see it, which only current_setting() tells.
        conn.execute("select current_setting('cron.database_name', true)")
        return None
    return found[0]


def jobs(database: str, home: str) -> list[tuple[str, str, str]]:
    """Name, command and database of each job for `database`; pg_cron lives in `home`."""
    return [
        (f"flashsale sweep {database}", SWEEP, database),
        (f"flashsale forget runs {database}", FORGET_RUNS, home),
    ]


def _schedule(cron: psycopg.Connection, database: str) -> str:
    if not cron.execute("select exists (select from pg_extension where extname = 'pg_cron')").fetchone()[0]:
        cron.execute("create extension if not exists pg_cron")
    version = cron.execute("select extversion from pg_extension where extname = 'pg_cron'").fetchone()[0]
    when = "5 seconds" if _numbers(version) >= (1, 5) else "* * * * *"
    user = _job_user(cron)
    with cron.transaction():
        _unschedule(cron, database, keep_user=user)
        for name, command, where in jobs(database, cron.info.dbname):
            at = when if command == SWEEP else "17 * * * *"
            cron.execute(
                "select cron.schedule_in_database(%s, %s, %s, %s, %s)", (name, at, command, where, user)
            )
    return when


def _job_user(cron: psycopg.Connection) -> str:
    """The role of the jobs: one of their own if we are allowed to appoint another than ourselves."""
    user, is_superuser = cron.execute(
        "select current_user::text, rolsuper from pg_roles where rolname = current_user"
    ).fetchone()
    if not is_superuser:
        return user
    # Without background workers pg_cron logs in over TCP: only of ourselves is it known that this succeeds.
    if cron.execute("select current_setting('cron.use_background_workers', true)").fetchone()[0] != "on":
        return user
    if not cron.execute("select exists (select from pg_roles where rolname = %s)", (JOB_ROLE,)).fetchone()[0]:
        # Unless a migrate of another database on this server makes it at this moment.
        with suppress(errors.DuplicateObject, errors.UniqueViolation):
            cron.execute(sql.SQL("create role {} login").format(sql.Identifier(JOB_ROLE)))
    cron.execute(sql.SQL("grant flashsale_ops to {}").format(sql.Identifier(JOB_ROLE)))
    cron.execute(sql.SQL("grant usage on schema cron to {}").format(sql.Identifier(JOB_ROLE)))
    return JOB_ROLE


def _unschedule(cron: psycopg.Connection, database: str, keep_user: str | None) -> None:
    """Remove this database's jobs, except those that scheduling as `keep_user` will overwrite.

    Those of earlier versions, too: a job outlives the name of what it calls, and would fail at each run.
    """
    cron.execute(
        "select cron.unschedule(jobid) from cron.job"
        " where jobname = 'flashsale tidy ' || %(database)s"
        " or jobname in ('flashsale sweep ' || %(database)s, 'flashsale forget runs ' || %(database)s)"
        " and username is distinct from %(keep_user)s",
        {"database": database, "keep_user": keep_user},
    )


def _not_scheduled(conn: psycopg.Connection, reason: str) -> str:
    _record(conn, None)
    return _NOTHING_SWEEPS.format(reason)


def _record(conn: psycopg.Connection, when: str | None) -> None:
    """Tell readiness(), which cannot see into pg_cron's database."""
    with conn.transaction():
        conn.execute("set local role flashsale_owner")
        conn.execute(
            "insert into flashsale_data.scheduler (schedule, scheduled_at)"
            " values (%(when)s::text, case when %(when)s::text is not null then now() end)"
            " on conflict (singleton) do update"
            " set schedule = excluded.schedule, scheduled_at = excluded.scheduled_at",
            {"when": when},
        )


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", version))
