"""A session before its first call: on the primary, a backend of its own, with the settings it depends on.

Settings of the role, the database and the server reach every session. Those that change what is read or
written are pinned; so are time limits that would end a session, or a long command. What a setting of another
kind (planner, memory, logging) changes is speed alone. Left as they are:

    default_transaction_read_only
        a brake of the operator: writes are refused with its name
    lock_timeout, statement_timeout
        the HTTP server has its own, by connection
    session_replication_role
        only a superuser can set it; doctor examines it

They are set once the session is open, not sent on connecting: a pooler may drop what is sent, or refuse it.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

PINNED = {
    "array_nulls": "on",  # off, NULL in an array is the text NULL: every request had the same key
    "backslash_quote": "safe_encoding",
    "bytea_output": "hex",
    "client_encoding": "UTF8",
    "datestyle": "ISO, MDY",
    "default_table_access_method": "heap",
    "default_transaction_deferrable": "off",
    "default_transaction_isolation": "read committed",
    "escape_string_warning": "on",
    "exit_on_error": "off",  # on, a refusal ends the session
    "extra_float_digits": "1",
    "idle_in_transaction_session_timeout": "0",
    "idle_session_timeout": "0",
    "intervalstyle": "postgres",
    "plpgsql.extra_errors": "none",  # more strictness than the functions are written for
    "quote_all_identifiers": "off",  # on, names in the catalog differ from those in sql/
    "restrict_nonsystem_relation_kind": "",
    "row_security": "on",
    "search_path": "pg_catalog, pg_temp",
    "standard_conforming_strings": "on",
    "timezone": "UTC",
    "transaction_timeout": "0",
    "transform_null_equals": "off",
    "xmloption": "content",
}
"""by name: the value as current_setting() spells it. A setting that the server does not have is left out"""

STANDBY = "the server is a standby, in recovery: FLASHSALE_DATABASE_URL must lead to the primary"
READ_ONLY = "transactions are read-only: default_transaction_read_only is on for this session"
TRANSACTION_POOLER = (
    "a pooler hands each transaction to another backend: connect to PostgreSQL directly, or through a pool in"
    " session mode"
)
PROBE_ROUNDS = 3
"""A pooler in transaction mode gives a session the backend that it has just had, unless another session is in
a transaction on it. Other sessions' transactions can hide that once, hardly three times."""

PIN = (
    "select s.name, pg_catalog.set_config(s.name, s.value, false)"
    " from rows from (pg_catalog.unnest(%s::text[]), pg_catalog.unnest(%s::text[])) as s (name, value)"
    " where pg_catalog.current_setting(s.name, true) is distinct from s.value"
    " and pg_catalog.current_setting(s.name, true) is not null"
)
"""sets those settings that have another value"""


def pin_parameters(settings: Mapping[str, str]) -> tuple[Sequence[str], Sequence[str]]:
    """The parameters of PIN."""
    return list(settings), list(settings.values())


class SessionRefused(Exception):
    """The session cannot be used; the message says why, and what to change."""


class Session(NamedTuple):
    """What a new session is."""

    in_recovery: bool
    is_read_only: bool
    backend_pid: int


IDENTIFY = (
    "select pg_catalog.pg_is_in_recovery(),"
    " pg_catalog.current_setting('transaction_read_only') = 'on', pg_catalog.pg_backend_pid()"
)


async def establish(
    connection: psycopg.AsyncConnection[Any],
    conninfo: str,
    settings: Mapping[str, str],
    *,
    writes: bool,
) -> None:
    """Examine a new session, and set what it needs.

    :param conninfo: of the connection; a second one is opened if there is a pooler in between
    :param settings: by name, as current_setting() spells them
    :param writes: the session is for writes
    :raises SessionRefused:
    :raises psycopg.Error:
    """
    session = Session._make(await _fetch_row(connection, IDENTIFY))
    if session.in_recovery:  # guard: session-on-primary
        raise SessionRefused(STANDBY)
    # A pooler sends a process id of its own in the handshake.
    if session.backend_pid != connection.pgconn.backend_pid and await _is_shared(
        connection, conninfo, session.backend_pid
    ):
        raise SessionRefused(TRANSACTION_POOLER)
    if writes and session.is_read_only:  # guard: session-for-writes
        raise SessionRefused(READ_ONLY)
    await connection.execute(PIN, pin_parameters(settings))  # guard: session-settings


async def _is_shared(connection: psycopg.AsyncConnection[Any], conninfo: str, backend_pid: int) -> bool:
    """Whether the session's backend changes while another session is in a transaction."""
    # The same pooler, where the URL names several.
    info = connection.info
    options: dict[str, Any] = conninfo_to_dict(conninfo) | {"host": info.host, "port": info.port}
    options |= {"hostaddr": info.hostaddr} if info.hostaddr else {}
    same = make_conninfo(**options)
    async with await psycopg.AsyncConnection.connect(same, autocommit=True) as other:
        for _ in range(PROBE_ROUNDS):
            await other.execute("begin")
            (others,) = await _fetch_row(other, "select pg_catalog.pg_backend_pid()")
            (now,) = await _fetch_row(connection, "select pg_catalog.pg_backend_pid()")
            await other.execute("rollback")
            if others == backend_pid or now != backend_pid:  # guard: session-of-its-own
                return True
    return False


async def _fetch_row(connection: psycopg.AsyncConnection[Any], query: str) -> tuple[Any, ...]:
    row: tuple[Any, ...] | None = await (await connection.execute(query)).fetchone()
    if row is None:
        raise psycopg.InterfaceError(f"no row: {query}")
    return row
