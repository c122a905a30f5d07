"""A database session that knows one statement, and calls it with as little ado as libpq allows.

psycopg's cursor has the event loop watch the socket anew for every wait, and works out each time what it
could send; for the small calls of a sale that is half of a call's cost. Here one reader stays on the socket
for as long as the session lives, and the statement is prepared once, at the start. Everything else
(connecting, the values in rows, errors) is psycopg's.
"""

import asyncio
import select
from collections.abc import Callable, Sequence
from typing import Any

import psycopg
from psycopg.adapt import Transformer
from psycopg.pq import ExecStatus, Format
from psycopg.pq.abc import PGresult

_CALL = b"call"
"""the prepared statement's name, the session's only one"""


class Session:
    """A connection of its own with a prepared statement. One call at a time.

    :param connection: connected, and left to the session from now on
    """

    def __init__(self, connection: psycopg.AsyncConnection[Any]) -> None:
        self.connection = connection
        self._pgconn = connection.pgconn
        self._socket = connection.fileno()
        self._transformer = Transformer(connection)
        self._results: list[PGresult] = []
        self._answer: asyncio.Future[PGresult] | None = None
        self._is_broken = False
        self._is_listening = True
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._socket, self._read)
        self._poll = select.poll()
        self._poll.register(self._socket, select.POLLIN)

    def is_alive(self) -> bool:
        """Whether the server is still there, as far as this machine knows already.

        A write into a connection that the server closed while it was idle would have an unknown outcome;
        looking first makes it a definite one. Between calls the server rarely speaks: a farewell, or a
        parameter that changed.
        """
        if not self._is_broken and self._poll.poll(0):
            self._read()
        return not self._is_broken

    async def prepare(self, statement: str) -> None:
        """Have the server know what `call` calls; its parameters are $1, $2, …

        :raises psycopg.Error:
        """
        await self._ask(lambda: self._pgconn.send_prepare(_CALL, statement.encode()))

    async def call(self, parameters: Sequence[str]) -> list[tuple[Any, ...]]:
        """The rows that the statement gives for these values, which travel as text.

        :raises psycopg.DataError: a value that PostgreSQL's text cannot hold (NUL, a lone surrogate). It was
            not sent, and there is no SQLSTATE
        :raises psycopg.Error: with a SQLSTATE, what the server said; without, the connection broke
        """
        values = [_text(value) for value in parameters]
        result = await self._ask(
            lambda: self._pgconn.send_query_prepared(_CALL, values, result_format=Format.BINARY)
        )
        self._transformer.set_pgresult(result)
        return self._transformer.load_rows(0, result.ntuples, tuple)

    async def close(self) -> None:
        self._stop_listening()
        await self.connection.close()

    async def _ask(self, send: Callable[[], None]) -> PGresult:
        self._results = []
        self._answer = answer = self._loop.create_future()
        try:
            send()
            self._flush()
            return await answer
        finally:
            self._answer = None

    def _flush(self) -> None:
        """Hand over what the socket takes now, and the rest as soon as it takes more."""
        try:
            if self._pgconn.flush():
                self._loop.add_writer(self._socket, self._flush)
            else:
                self._loop.remove_writer(self._socket)
        except psycopg.Error as error:
            self._fail(error)

    def _read(self) -> None:
        try:
            self._pgconn.consume_input()
            # To the last: of a socket with an error (the server died with our request unread) uvloop tells
            # only once, even if a farewell is to be read before the error.
            while self._poll.poll(0):
                self._pgconn.consume_input()
            while not self._pgconn.is_busy():
                result = self._pgconn.get_result()
                if result is None:
                    self._complete()
                    break
                self._results.append(result)
            if self.connection.closed:  # libpq may know before it says so
                self._fail(psycopg.OperationalError("the connection is lost"))
        except psycopg.Error as error:
            self._fail(error)

    def _complete(self) -> None:
        if self._answer is None or self._answer.done() or not self._results:
            return
        result = self._results[-1]
        if result.status in (ExecStatus.TUPLES_OK, ExecStatus.COMMAND_OK):
            self._answer.set_result(result)
        else:
            self._answer.set_exception(psycopg.errors.error_from_result(result, "utf-8"))

    def _fail(self, error: psycopg.Error) -> None:
        self._is_broken = True
        self._stop_listening()
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(error)

    def _stop_listening(self) -> None:
        # Once: libpq closes the socket of a broken connection, and the next one to be opened has its number.
        if self._is_listening:
            self._is_listening = False
            self._loop.remove_reader(self._socket)
            self._loop.remove_writer(self._socket)


def _text(value: str) -> bytes:
    try:
        data = value.encode()
    except UnicodeEncodeError as error:
        raise psycopg.DataError(str(error)) from error
    if b"\0" in data:  # libpq would take it for the end
        raise psycopg.DataError("PostgreSQL text cannot contain NUL (0x00) bytes")
    return data
