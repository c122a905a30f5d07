"""Connections of the command line, and PostgreSQL's errors as sentences."""

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TypeAlias, TypeVar

import psycopg
from psycopg.abc import Params, QueryNoTemplate
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from api.database.session import PIN, PINNED, pin_parameters
from flashsale.errors import UserError
from flashsale.local.cluster import DATABASE, SUPERUSER, Cluster
from flashsale.settings import Settings

CONNECT_TIMEOUT_SECONDS = 10
"""seconds, unless the URL has another"""

_PINNED = PINNED | {"statement_timeout": "0"}
"""a command may take as long as it needs"""

Connection: TypeAlias = psycopg.Connection[Any]
Result = TypeVar("Result")


_used: ContextVar[str | None] = ContextVar("database", default=None)


class CannotConnect(psycopg.OperationalError):
    """No connection was made: nothing was sent, and nothing was done."""


@contextmanager
def use_database(url: str) -> Iterator[None]:
    """Have admin_url() return this URL."""
    token = _used.set(url)
    try:
        yield
    finally:
        _used.reset(token)


def admin_url() -> str:
    """FLASHSALE_DATABASE_URL, or else the superuser's URL of the running private cluster.

    :raises UserError: the variable is not set, and no private cluster is running
    """
    if used := _used.get():
        return used
    settings = Settings.from_environment()
    if settings.database_url:
        try:
            conninfo_to_dict(settings.database_url)
        except psycopg.Error:
            # Without psycopg's message, which quotes the password.
            raise UserError("FLASHSALE_DATABASE_URL is not a libpq connection string or URI") from None
        return settings.database_url
    cluster = Cluster(settings.data_directory)
    if not cluster.is_running():
        raise UserError("set FLASHSALE_DATABASE_URL, or start the private cluster with: flashsale up")
    return cluster.url(SUPERUSER, DATABASE)


def connect(command: str, url: str | None = None) -> Connection:
    """An autocommit connection to `url`, or else to admin_url().

    :param command: shown as application_name in pg_stat_activity
    :raises CannotConnect: with libpq's message
    """
    options: dict[str, Any] = {"connect_timeout": CONNECT_TIMEOUT_SECONDS}
    options |= conninfo_to_dict(url or admin_url())
    options |= {"application_name": f"flashsale {command}", "client_encoding": "UTF8"}
    # Without psycopg's own prepared statements: behind a pooler their names can be another session's.
    try:
        conn = psycopg.connect(make_conninfo(**options), autocommit=True, prepare_threshold=None)
    except psycopg.OperationalError as error:
        raise CannotConnect(str(error)) from error
    try:
        pin_settings(conn)
    except BaseException:
        conn.close()
        raise
    return conn


def pin_settings(conn: Connection, *, keep: Collection[str] = (), **more: str) -> None:
    """Give a session the settings that this project is written for, except those to `keep`, and `more`.

    Settings of the role or the database would change what a command reads, prints or loads.
    """
    settings = {name: value for name, value in _PINNED.items() if name not in keep} | more
    conn.execute(PIN, pin_parameters(settings))  # guard: settings-pinned


def fetch_row(conn: Connection, query: QueryNoTemplate, parameters: Params | None = None) -> Any:
    """The first row of a query that always has one."""
    row = conn.execute(query, parameters).fetchone()
    if row is None:
        raise LookupError(f"no row: {query!r}")
    return row


def fetch_value(conn: Connection, query: QueryNoTemplate, parameters: Params | None = None) -> Any:
    """The first column of the first row of a query that always has one."""
    return fetch_row(conn, query, parameters)[0]


def quote_ident(conn: Connection, name: str) -> str:
    """A name as PostgreSQL writes it in a statement: with quotes only if it requires them."""
    return str(fetch_value(conn, "select quote_ident(%s::text)", (name,)))


def poll(
    query: Callable[[Connection], Result], command: str, url: str | None = None
) -> Iterator[Result | psycopg.OperationalError]:
    """The results of `query`, called again for each; the error instead while the database is unreachable.

    Reconnects after an error. The first connection attempt raises.
    """
    conn = connect(command, url)
    try:
        while True:
            try:
                if conn.closed:
                    conn = connect(command, url)
                yield query(conn)
            except psycopg.OperationalError as error:
                yield error
    finally:
        conn.close()


def describe_error(error: psycopg.Error) -> str:
    """PostgreSQL's message as one sentence, with the remedy if there is a known one."""
    message = error.diag.message_primary
    detail = f": {error.diag.message_detail}" if error.diag.message_detail else ""
    state = error.sqlstate or ""
    if state.startswith("SA"):
        return f"{message}{detail}"
    if state == "42501":
        return f"{message}: use a role that is a member of flashsale_ops, such as the one that migrates"
    if state in ("3F000", "42883", "42P01", "42703"):
        return f"{message}: the database has another version of flashsale, or none; run: flashsale migrate"
    if state == "25006":
        return (
            f"{message}: the server is a standby, or default_transaction_read_only is on;"
            " see flashsale doctor"
        )
    if message is None:
        # libpq's message, which may have several lines.
        said = " ".join(str(error).split())
        if isinstance(error, CannotConnect):
            return f"cannot connect to the database: {said}"
        return f"the connection to the database was lost: {said}"
    return f"{message}{detail}"
