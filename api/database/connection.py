"""One connection that serves one set-based function, and tells what became of each call.

The difference that matters is between "nothing happened" and "nobody knows". A server that answers with an
error and lives on has rolled the call back. One that says FATAL, or nothing, may have committed before.
"""

import asyncio
import logging
import os
import socket
from collections.abc import Sequence
from typing import Any

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from api.database.batching import NotSent, OutcomeUnknown, RolledBack, Row
from api.database.functions import Function
from api.database.prepared_statement import Session
from api.telemetry.batch_metrics import Observer, WayObserver

log = logging.getLogger("flashsale.api")

CONNECT_TIMEOUT = 1.0
"""seconds until a server that does not answer counts as absent"""
RECONNECT_PAUSE = 0.2
"""seconds after a failed attempt in which requests are refused without another one"""
HANG_TIMEOUT = 3.0
"""seconds after which a call without an answer costs the connection; its callers were answered long before"""
STATEMENT_TIMEOUT = 500
"""milliseconds that the server gives a call, commit aside; below what Limits leaves between patience and
deadline, so that its word, by which nothing happened, comes before our giving up, by which nobody knows"""


def connection_string(url: str, name: str, *, lock_timeout: int) -> str:
    """`url` with what every connection of this server needs.

    :param url: libpq connection string or URI; what it says itself wins, and its `options` come last
    :param name: shown in pg_stat_activity.application_name
    :param lock_timeout: milliseconds
    """
    given = conninfo_to_dict(url)
    settings = {
        "lock_timeout": str(lock_timeout),
        "statement_timeout": str(STATEMENT_TIMEOUT),
        "default_transaction_isolation": "read\\ committed",
        "timezone": "UTC",
        "jit": "off",
    }
    options = " ".join(f"-c {setting}={value}" for setting, value in settings.items())
    defaults: dict[str, Any] = {
        "application_name": name,
        "client_encoding": "UTF8",
        # A peer that vanished without a word is noticed by TCP within seconds.
        "keepalives_idle": 5,
        "keepalives_interval": 2,
        "keepalives_count": 3,
        "tcp_user_timeout": 3000,
    }
    return make_conninfo(
        **{**defaults, **given, "options": f"{options} {given.get('options') or ''}".strip()}
    )


class Lane:
    """A dedicated connection, opened when it is needed and replaced when it breaks.

    It is no pool's: it is never shared, and a pool's growing pauses between attempts would outlast the
    database's absence. Calls come one at a time.

    :param conninfo: from connection_string
    :param function: the set-based function behind this lane
    :param observer: is told when it connects and disconnects
    """

    def __init__(self, conninfo: str, function: Function, observer: WayObserver | None = None) -> None:
        self._conninfo = conninfo
        self._function = function
        self._observer = observer or Observer(function.name).way("")
        self._session: Session | None = None
        self._not_before = 0.0
        self._why = ""

    async def open(self) -> None:
        """Connect ahead of the first call, if the database lets us."""
        try:
            await self._connect()
        except NotSent as error:
            log.warning("%s: %s", self._function.name, error)

    async def close(self) -> None:
        if self._session is not None:
            session, self._session = self._session, None
            self._observer.disconnected()
            await session.close()

    async def call(self, requests: Sequence[tuple[Any, ...]]) -> list[Row]:
        """Call the function for these argument tuples.

        :raises NotSent: the database is not there; nothing happened
        :raises RolledBack: the server refused the whole call; nothing happened
        :raises OutcomeUnknown: the connection broke, or was cut after HANG_TIMEOUT, before an answer came
        """
        session = self._session
        if session is None or not session.is_alive():
            await self.close()
            session = await self._connect()
        cut = cut_later(session.connection, HANG_TIMEOUT)
        try:
            return await session.call(self._function.parameters(requests))
        except psycopg.Error as error:
            outcome = outcome_of(error, session.connection)
            # 0A000 and 26000: the functions were reloaded and this session's plan of the call is void.
            if isinstance(outcome, OutcomeUnknown) or outcome.sqlstate[:2] in ("0A", "25", "26", "42", "57"):
                await self.close()
            raise outcome from error
        except BaseException:
            await self.close()
            raise
        finally:
            cut.cancel()

    async def _connect(self) -> Session:
        loop = asyncio.get_running_loop()
        if loop.time() < self._not_before:
            raise NotSent(self._why)
        session: Session | None = None
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT):
                session = Session(await psycopg.AsyncConnection.connect(self._conninfo, autocommit=True))
                await session.prepare(self._function.statement)
        except (psycopg.Error, OSError, TimeoutError) as error:
            if session is not None:
                await session.close()
            self._observer.not_connected()
            self._not_before = loop.time() + RECONNECT_PAUSE
            self._why = f"no connection to the database: {error or 'no answer'}".strip()
            raise NotSent(self._why) from error
        self._session = session
        self._observer.connected()
        return session


def outcome_of(error: psycopg.Error, connection: psycopg.AsyncConnection[Row]) -> RolledBack | OutcomeUnknown:
    """What became of a call that ended with this error."""
    if isinstance(error, psycopg.DataError) and error.sqlstate is None:
        return RolledBack("22021", str(error))  # a value that could not be sent
    if error.sqlstate is None or connection.closed or error.diag.severity_nonlocalized in ("FATAL", "PANIC"):
        return OutcomeUnknown(str(error))  # guard: outcome-unknown
    return RolledBack(error.sqlstate, error.diag.message_primary or str(error))


def cut_later(connection: psycopg.AsyncConnection[Row], seconds: float) -> asyncio.TimerHandle:
    """End a connection from outside after a while, unless the handle is cancelled first.

    Whoever waits on it then sees its end. Cancelling the wait instead would have psycopg ask the server to
    cancel, and wait for that.
    """
    return asyncio.get_running_loop().call_later(seconds, _cut, connection)


def _cut(connection: psycopg.AsyncConnection[Row]) -> None:
    if not connection.closed:
        with socket.socket(fileno=os.dup(connection.fileno())) as peer:
            peer.shutdown(socket.SHUT_RDWR)
