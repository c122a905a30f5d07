"""The connection of one set-based function, and the outcome of each call.

A connection is looked after while it is idle: the event loop sees when the server closes it, and a background
task opens it again. So its gauge is true without requests, and the first request after a restart of
PostgreSQL finds it open.

An error from a session that lives on means that the call was rolled back. After FATAL, or a broken
connection without an error, the outcome is unknown: the server may have committed before.
"""

import asyncio
import logging
import re
import socket
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, Generic

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from api.database.errors import OutcomeUnknown, RolledBack, Unavailable
from api.database.functions import Function, Row
from api.database.hosts import PrimaryConnection, to_primary
from api.database.prepared_statement import PreparedCall
from api.database.session import PINNED, SessionRefused, establish
from api.telemetry.batch_metrics import BatchMetrics, PathMetrics

log = logging.getLogger("flashsale.api")

CONNECT_TIMEOUT_SECONDS = 1.0
"""seconds for a connection attempt"""
RECONNECT_DELAY_SECONDS = 0.2
"""seconds after a failed connection attempt in which calls fail without a new one, and before the first
attempt in the background"""
MAX_RECONNECT_DELAY_SECONDS = 1.0
"""seconds between two attempts in the background, which begin with RECONNECT_DELAY_SECONDS and double"""
SOCKET_TIMEOUT_SECONDS = 3.0
"""seconds after which a call without a response costs the connection; its requests have timed out before"""
STATEMENT_TIMEOUT_MS = 500
"""milliseconds for a call in the server, its commit excluded. Less than Limits leaves between queue_timeout
and response_timeout: then the server's error, a known outcome, arrives before the requests time out"""

_INVALID_SESSION_CLASSES = frozenset({"0A", "25", "26", "42", "57"})
"""SQLSTATE classes after which the session is replaced. 0A, 26, 42: the functions were reloaded, or grants
changed, and the prepared statement is invalid; 25: the session is read-only, as after a failover; 57: the
server cancelled the call or shuts down"""


def session_settings(url: str, *, lock_timeout_ms: int) -> Mapping[str, str]:
    """The settings of a session of this server. Time limits in the `options` of `url` take precedence."""
    limits = {
        "lock_timeout": f"{lock_timeout_ms}ms",
        "statement_timeout": f"{STATEMENT_TIMEOUT_MS}ms",
        "jit": "off",
    }
    options = str(conninfo_to_dict(url).get("options") or "")
    given = [name.replace("-", "_").lower() for name in re.findall(r"(?:-c\s*|--)([\w.-]+)=", options)]
    return {name: value for name, value in limits.items() if name not in given} | PINNED


def connection_string(url: str, name: str) -> str:
    """`url` with the parameters of every connection of this server; its own take precedence.

    :param url: libpq connection string or URI
    :param name: shown in pg_stat_activity.application_name
    """
    defaults: dict[str, Any] = to_primary(url) | {  # guard: hosts-to-primary
        "application_name": name,
        # TCP detects a peer that vanished within seconds.
        "keepalives_idle": 5,
        "keepalives_interval": 2,
        "keepalives_count": 3,
        "tcp_user_timeout": 3000,
    }
    return make_conninfo(**{**defaults, **conninfo_to_dict(url), "client_encoding": "UTF8"})


class FunctionConnection(Generic[Row]):
    """A dedicated connection for one function, opened on demand and replaced when it breaks.

    Once it has been opened by `open`, it is kept open: a background task replaces it as soon as it breaks.
    It is not taken from a pool: it is never shared, and the growing delays between a pool's reconnection
    attempts would outlast an outage of the database. Calls must not overlap.

    :param url: libpq connection string or URI
    :param name: shown in pg_stat_activity.application_name
    :param lock_timeout_ms: milliseconds for each lock of a call
    :param writes: the function writes
    """

    def __init__(
        self,
        url: str,
        name: str,
        function: Function[Row],
        metrics: PathMetrics | None = None,
        *,
        lock_timeout_ms: int,
        writes: bool,
    ) -> None:
        self._conninfo = connection_string(url, name)
        self._settings = session_settings(url, lock_timeout_ms=lock_timeout_ms)
        self._function = function
        self._writes = writes
        self._metrics = metrics or BatchMetrics(function.name).path("")
        self._prepared: PreparedCall[Row] | None = None
        self._retry_at = 0.0
        self._last_error = ""
        self._connecting = asyncio.Lock()
        self._is_kept_open = False
        self._keeper: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Connect before the first call, or as soon as the database is available, and keep connected."""
        self._is_kept_open = True
        try:
            await self._connect()
        except Unavailable:
            self._keep_open()

    async def close(self) -> None:
        self._is_kept_open = False
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.wait([self._keeper])
        await self._disconnect()

    async def _disconnect(self) -> None:
        prepared = self._forget()
        if prepared is not None:
            await prepared.close()

    def _forget(self) -> PreparedCall[Row] | None:
        """The connection, which is no longer used for calls."""
        prepared, self._prepared = self._prepared, None
        if prepared is not None:
            self._metrics.disconnected()
            self._keep_open()
        return prepared

    def _lost(self, prepared: PreparedCall[Row]) -> None:
        """The server has closed the connection, or has gone, while it was idle."""
        if self._prepared is prepared:
            self._forget()
            # Later: the rows of a call that has just ended may not have been loaded yet.
            asyncio.get_running_loop().call_soon(prepared.connection.pgconn.finish)

    def _keep_open(self) -> None:
        if self._is_kept_open and (self._keeper is None or self._keeper.done()):
            self._keeper = asyncio.get_running_loop().create_task(self._reconnect())

    async def _reconnect(self) -> None:
        """Connect again. A call that comes between two attempts does not wait, but connects itself."""
        delay = RECONNECT_DELAY_SECONDS
        while self._prepared is None:
            await asyncio.sleep(delay)
            delay = min(2 * delay, MAX_RECONNECT_DELAY_SECONDS)
            with suppress(Unavailable):
                await self._connect()

    async def call(self, requests: Sequence[tuple[Any, ...]]) -> list[Row]:
        """Call the function for these argument tuples.

        :raises Unavailable: no connection
        :raises RolledBack: the server reported an error; nothing happened
        :raises OutcomeUnknown: the connection broke before a response, or was closed after
            SOCKET_TIMEOUT_SECONDS
        """
        prepared = self._prepared
        if prepared is None or not prepared.is_alive():
            await self._disconnect()
            prepared = await self._connect()
        timer = disconnect_after(prepared.connection, SOCKET_TIMEOUT_SECONDS)
        try:
            return await prepared.call(self._function.parameters(requests))
        except psycopg.Error as error:
            outcome = outcome_of(error, prepared.connection)
            if isinstance(outcome, OutcomeUnknown) or outcome.sqlstate[:2] in _INVALID_SESSION_CLASSES:
                await self._disconnect()
            raise outcome from error
        except BaseException:
            await self._disconnect()
            raise
        finally:
            timer.cancel()

    async def _connect(self) -> PreparedCall[Row]:
        async with self._connecting:  # a call and the background task may want to connect at the same time
            return self._prepared or await self._connect_once()

    async def _connect_once(self) -> PreparedCall[Row]:
        loop = asyncio.get_running_loop()
        if loop.time() < self._retry_at:
            raise Unavailable(self._last_error)
        connection: psycopg.AsyncConnection[Any] | None = None
        prepared: PreparedCall[Row] | None = None
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_SECONDS):
                connection = await PrimaryConnection.connect(self._conninfo, autocommit=True)
                await establish(connection, self._conninfo, self._settings, writes=self._writes)
                prepared = PreparedCall(connection, self._function.name, self._function.make_row, self._lost)
                await prepared.prepare(self._function.statement)
        except (psycopg.Error, SessionRefused, OSError, TimeoutError) as error:
            if prepared is not None:
                await prepared.close()
            elif connection is not None:
                await connection.close()
            self._metrics.connection_failed()
            self._retry_at = loop.time() + RECONNECT_DELAY_SECONDS
            message = f"no connection to the database: {error or 'connection timeout'}".strip()
            if message != self._last_error:  # once, not at every attempt
                log.warning("%s: %s", self._function.name, message, extra=self._metrics.log_fields)
            self._last_error = message
            raise Unavailable(message) from error
        except BaseException:
            if prepared is not None:
                await prepared.close()
            elif connection is not None:
                await connection.close()
            raise
        if self._last_error:
            self._last_error = ""
            log.info("%s: connected to the database", self._function.name, extra=self._metrics.log_fields)
        self._prepared = prepared
        self._metrics.connected()
        return prepared


def outcome_of(error: psycopg.Error, connection: psycopg.AsyncConnection[Any]) -> RolledBack | OutcomeUnknown:
    """The outcome of a call that ended with this error."""
    if isinstance(error, psycopg.DataError) and error.sqlstate is None:
        return RolledBack("22021", str(error))  # a value that could not be sent
    if error.sqlstate is None or connection.closed or error.diag.severity_nonlocalized in ("FATAL", "PANIC"):
        return OutcomeUnknown(str(error))  # guard: outcome-unknown
    return RolledBack(error.sqlstate, error.diag.message_primary or str(error))


def disconnect_after(connection: psycopg.AsyncConnection[Any], seconds: float) -> asyncio.TimerHandle:
    """Shut the connection's socket down after a while, unless the handle is cancelled first.

    The pending call then fails with a connection error. Cancelling the call instead would make psycopg send
    a cancel request to the server and wait for its response.
    """
    return asyncio.get_running_loop().call_later(seconds, _disconnect, connection)


def _disconnect(connection: psycopg.AsyncConnection[Any]) -> None:
    if not connection.closed:
        peer = socket.socket(fileno=connection.fileno())  # no new descriptor: there may be none left
        try:
            peer.shutdown(socket.SHUT_RDWR)
        finally:
            peer.detach()
