"""The advisory lock that keeps two migrations of one database apart.

It is the session's, so that it outlasts the transactions of a migration and ends with the process.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import NamedTuple

import psycopg
from psycopg import errors
from psycopg.rows import class_row

from flashsale.database import pooler
from flashsale.database.connection import Connection, connect, describe_error, fetch_value
from flashsale.errors import UserError

LOCK_TIMEOUT = timedelta(minutes=1)
"""how long a migration waits for another one of the same database"""
_KEY = 0x666C617368  # "flash"


@contextmanager
def migration_lock(url: str, timeout: timedelta, say: Callable[[str], None]) -> Iterator[Connection]:
    """A connection whose session holds the lock.

    :param timeout: how long to wait for it
    :param say: called if it has to wait
    :raises UserError: no session can be kept, or another one holds the lock
    """
    try:
        conn = connect("migrate", url)
    except psycopg.OperationalError as error:
        raise UserError(describe_error(error)) from error
    with conn:
        if pooler.shares_sessions(conn, url):  # guard: migrate-without-pooler
            raise UserError(
                "the connection leads through a pooler in transaction mode, which gives each transaction"
                " another session of the server; migrate needs one session of its own. Use a URL that leads"
                " to PostgreSQL itself, or to a pool in session mode"
            )
        if not fetch_value(conn, "select pg_try_advisory_lock(%s)", (_KEY,)):
            say(f"waiting for another migrate of this database: {_describe(_holder(conn))}")
            _wait(conn, timeout)
        check_lock(conn)
        # pg_locks has no time, and pg_stat_activity hides its times from other roles, but not this name.
        conn.execute(
            "select set_config('application_name', to_char(clock_timestamp() at time zone 'UTC',"
            """ '"flashsale migrate since" YYYY-MM-DD HH24:MI:SS"Z"'), false)"""
        )
        yield conn


def check_lock(conn: Connection) -> None:
    """:raises UserError: the session that runs this statement does not hold the lock"""
    holder = _holder(conn)
    if holder is None or holder.pid != fetch_value(conn, "select pg_backend_pid()"):
        raise UserError(
            "this session does not hold the lock of migrations; a pooler has changed the session of the"
            " connection. Use a URL that leads to PostgreSQL itself"
        )


def _wait(conn: Connection, timeout: timedelta) -> None:
    milliseconds = max(1, timeout // timedelta(milliseconds=1))  # 0 would be no limit
    try:
        with conn.transaction():
            conn.execute("set local statement_timeout = 0")
            conn.execute("select set_config('lock_timeout', %s, true)", (f"{milliseconds}ms",))
            # The session's, not the transaction's: it outlasts the commit.
            conn.execute("select pg_advisory_lock(%s)", (_KEY,))
    except errors.LockNotAvailable:
        holder = _holder(conn)
        if holder is None:
            raise UserError("another migrate of this database has just ended; run it again") from None
        raise UserError(
            "another migrate of this database did not end within"
            f" {timeout.total_seconds():g} s: {_describe(holder)}."
            " Wait longer with --lock-timeout, or end that session as a superuser:"
            f" select pg_terminate_backend({holder.pid});"
        ) from None


class _Holder(NamedTuple):
    """The session that holds the lock; what its role keeps hidden is null."""

    pid: int
    role: str | None
    application_name: str | None
    connected_at: str | None


def _holder(conn: Connection) -> _Holder | None:
    query = """
        select l.pid, a.usename::text as role, nullif(a.application_name, '') as application_name,
               to_char(a.backend_start at time zone 'UTC', 'YYYY-MM-DD HH24:MI:SS"Z"') as connected_at
          from pg_locks l left join pg_stat_activity a on a.pid = l.pid
         where l.locktype = 'advisory' and l.granted and l.objsubid = 1
           and l.database = (select oid from pg_database where datname = current_database())
           and l.classid = %s::bigint::oid and l.objid = %s::bigint::oid
    """
    return (
        conn.cursor(row_factory=class_row(_Holder)).execute(query, (_KEY >> 32, _KEY & 0xFFFFFFFF)).fetchone()
    )


def _describe(holder: _Holder | None) -> str:
    if holder is None:
        return "it has just ended"
    name = holder.application_name or "no application name"
    if holder.connected_at and " since " not in name:
        name += f", connected since {holder.connected_at}"
    return f"process {holder.pid} of role {holder.role or 'unknown'} holds the lock ({name})"
