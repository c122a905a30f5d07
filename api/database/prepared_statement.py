"""A connection with one prepared statement, executed with minimal overhead.

psycopg's cursor registers the socket with the event loop for every wait, and adapts the parameters for every
execution: half of the cost of a small call. Here one reader stays registered for the connection's lifetime,
and the statement is prepared once. Connecting, loading values and errors are psycopg's.
"""

import asyncio
import select
from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

import psycopg
from psycopg.adapt import Transformer
from psycopg.pq import ExecStatus, Format
from psycopg.pq.abc import PGresult

T = TypeVar("T")


class PreparedCall(Generic[T]):
    """A prepared statement and its connection. Calls must not overlap.

    :param connection: connected; owned by this object from now on
    :param name: of the statement, the session's only one. Named after what it calls: should a pooler lead to
        a backend with statements of other sessions, there is no other of this name.
    :param make_row: makes a row of its values
    :param on_lost: called once when the connection breaks between two calls. The reader sees that at once:
        the socket of a connection that the server has closed is readable.
    """

    def __init__(
        self,
        connection: psycopg.AsyncConnection[Any],
        name: str,
        make_row: Callable[[Sequence[Any]], T],
        on_lost: "Callable[[PreparedCall[T]], None] | None" = None,
    ) -> None:
        self.connection = connection
        self._on_lost = on_lost
        self._name = name.encode()  # guard: statement-name
        self._make_row = make_row
        self._pgconn = connection.pgconn
        self._socket = connection.fileno()
        self._transformer = Transformer(connection)
        self._results: list[PGresult] = []
        self._pending: asyncio.Future[PGresult] | None = None
        self._is_broken = False
        self._is_reading = True
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._socket, self._read)
        self._poll = select.poll()
        self._poll.register(self._socket, select.POLLIN)

    def is_alive(self) -> bool:
        """Whether the connection is open, as far as this machine has been told.

        A write into a connection that the server closed while it was idle has an unknown outcome; a check
        before the write makes it a known one. Between calls the server rarely sends anything: an error before
        it closes the connection, or a changed parameter.
        """
        if not self._is_broken and self._poll.poll(0):
            self._read()
        return not self._is_broken

    async def prepare(self, statement: str) -> None:
        """Prepare the statement that `call` executes; its parameters are $1, $2, …

        :raises psycopg.Error:
        """
        await self._execute(lambda: self._pgconn.send_prepare(self._name, statement.encode()))

    async def call(self, parameters: Sequence[str | None]) -> list[T]:
        """Execute the statement with these values, which are sent as text; None is null.

        :raises psycopg.DataError: without a SQLSTATE: a value that PostgreSQL's text cannot hold (NUL, a lone
            surrogate); nothing was sent
        :raises psycopg.Error: with a SQLSTATE, an error of the server; without, the connection broke
        """
        values = [value if value is None else _text(value) for value in parameters]
        result = await self._execute(
            lambda: self._pgconn.send_query_prepared(self._name, values, result_format=Format.BINARY)
        )
        self._transformer.set_pgresult(result)
        return self._transformer.load_rows(0, result.ntuples, self._make_row)

    async def close(self) -> None:
        self._stop_reading()
        await self.connection.close()

    async def _execute(self, send: Callable[[], None]) -> PGresult:
        self._results = []
        pending: asyncio.Future[PGresult] = self._loop.create_future()
        self._pending = pending
        try:
            send()
            self._flush()
            return await pending
        finally:
            self._pending = None

    def _flush(self) -> None:
        """Write what the socket accepts now, and the rest when it becomes writable."""
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
            # Until nothing is left: uvloop reports a socket with an error (the server died before it read our
            # request) only once, even if data is to be read before the error.
            while self._poll.poll(0):
                self._pgconn.consume_input()
            while not self._pgconn.is_busy():
                result = self._pgconn.get_result()
                if result is None:
                    self._complete()
                    break
                self._results.append(result)
            if self.connection.closed:  # libpq may have noticed without raising
                self._fail(psycopg.OperationalError("the connection was closed"))
        except psycopg.Error as error:
            self._fail(error)

    def _complete(self) -> None:
        if self._pending is None or self._pending.done() or not self._results:
            return
        result = self._results[-1]
        if result.status in (ExecStatus.TUPLES_OK, ExecStatus.COMMAND_OK):
            self._pending.set_result(result)
        else:
            self._pending.set_exception(psycopg.errors.error_from_result(result, "utf-8"))

    def _fail(self, error: psycopg.Error) -> None:
        was_broken, self._is_broken = self._is_broken, True
        self._stop_reading()
        if self._pending is not None and not self._pending.done():
            self._pending.set_exception(error)
        elif self._on_lost is not None and not was_broken:
            self._on_lost(self)  # guard: idle-connection-lost

    def _stop_reading(self) -> None:
        # Only once: libpq closes the socket of a broken connection, and the next one to be opened may get its
        # file descriptor.
        if self._is_reading:
            self._is_reading = False
            self._loop.remove_reader(self._socket)
            self._loop.remove_writer(self._socket)


def _text(value: str) -> bytes:
    try:
        data = value.encode()
    except UnicodeEncodeError as error:
        raise psycopg.DataError(str(error)) from error
    if b"\0" in data:  # libpq would end the text there
        raise psycopg.DataError("PostgreSQL text cannot contain NUL (0x00) bytes")
    return data
