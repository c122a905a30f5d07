"""A proxy between API and PostgreSQL that breaks a connection at a chosen protocol message.

It listens on a loopback port and relays each connection to the server's unix socket, message by message
(PostgreSQL documentation, 55.7 "Message Formats"): a type byte, then four bytes of length that count
themselves; the first message of a client has no type. Connections are known by their application_name.
"""

import asyncio
import enum
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Direction(enum.Enum):
    TO_SERVER = "to the server"
    TO_CLIENT = "to the client"


class Failure(enum.Enum):
    CLOSE = "closed"
    RESET = "reset"
    BLACKHOLE = "silent"
    """open, but no message is relayed any more"""


@dataclass(frozen=True)
class FailurePoint:
    """Where a connection fails, counted in messages since `PgProxy.inject()`.

    :param after: so many messages are relayed in that direction; 0 drops the first
    :param half: and so is the first half of the next one
    :param server_limit: until then only so many messages are relayed to the server
    """

    direction: Direction
    after: int
    half: bool = False
    failure: Failure = Failure.CLOSE
    server_limit: int | None = None

    def __str__(self) -> str:
        half = " and a half" if self.half else ""
        limit = "" if self.server_limit is None else f", no more than {self.server_limit} to the server"
        return f"{self.failure.value} after {self.after}{half} {self.direction.value}{limit}"


@dataclass
class Trace:
    """The messages of the next connection with a name, and the failure to inject.

    :ivar messages: types of the messages, by direction; "startup" for a client's first
    :ivar pid: the backend of the connection, once it has sent its key
    :ivar released: no message is relayed to the server before
    """

    point: FailurePoint | None
    messages: dict[Direction, list[str]] = field(default_factory=lambda: {way: [] for way in Direction})
    failed: bool = False
    pid: int | None = None
    released: threading.Event = field(default_factory=threading.Event)


class PgProxy:
    """All connections between one client and one server. Made by `pg_proxy()`."""

    def __init__(self, server_socket: str) -> None:
        self._server_socket = server_socket
        self._traces: dict[str, Trace] = {}
        self._connections: set[_Connection] = set()
        self._loop = asyncio.new_event_loop()
        self._listener = self._loop.run_until_complete(asyncio.start_server(self._serve, "127.0.0.1", 0))
        self.port: int = self._listener.sockets[0].getsockname()[1]
        self._thread = threading.Thread(target=self._loop.run_forever, name="pg_proxy")
        self._thread.start()

    def inject(self, name: str, point: FailurePoint | None, *, released: bool = True) -> Trace:
        """Break the connection of this name at `point`, once; None only records."""
        self._traces[name] = trace = Trace(point)
        if released:
            trace.released.set()
        return trace

    def disconnect(self, name: str) -> None:
        """Close the connections of this name, so that the client opens a new one."""
        closing = self._end([connection for connection in self._connections if connection.name == name])
        asyncio.run_coroutine_threadsafe(closing, self._loop).result()

    def trace(self, name: str) -> Trace | None:
        return self._traces.get(name)

    async def _end(self, connections: list["_Connection"], failure: Failure = Failure.CLOSE) -> None:
        for connection in connections:
            connection.fail(failure)
        for connection in connections:
            await connection.ended.wait()

    async def _serve(self, *client: asyncio.StreamReader | asyncio.StreamWriter) -> None:
        try:
            server = await asyncio.open_unix_connection(self._server_socket)
        except OSError:
            client[1].transport.abort()
            return
        connection = _Connection(self, client, server)
        self._connections.add(connection)
        try:
            await connection.relay()
        finally:
            self._connections.discard(connection)

    def close(self) -> None:
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _close(self) -> None:
        self._listener.close()
        await self._end(list(self._connections), Failure.RESET)


class _Connection:
    def __init__(self, proxy: PgProxy, client: Streams, server: Streams) -> None:
        self._proxy = proxy
        self._client = client
        self._server = server
        self._pid: int | None = None
        self._silent = False
        self.name = ""
        self.ended = asyncio.Event()

    async def relay(self) -> None:
        """Until either side has closed."""
        try:
            await asyncio.gather(
                self._pump(self._client[0], self._server[1], Direction.TO_SERVER),
                self._pump(self._server[0], self._client[1], Direction.TO_CLIENT),
            )
            for _, writer in (self._client, self._server):
                with suppress(OSError):
                    await writer.wait_closed()
        finally:
            self.ended.set()

    async def _pump(
        self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, direction: Direction
    ) -> None:
        first = direction is Direction.TO_SERVER
        with suppress(OSError, EOFError):
            while True:
                kind, message = await self._read(source, first)
                if first:
                    self._read_startup(message)
                    first = False
                if kind == "K":
                    (self._pid,) = struct.unpack("!i", message[5:9])
                if not self._silent:
                    await self._forward(kind, message, sink, direction)
        self.fail(Failure.CLOSE)

    @staticmethod
    async def _read(reader: asyncio.StreamReader, startup: bool) -> tuple[str, bytes]:
        head = await reader.readexactly(4 if startup else 5)
        (length,) = struct.unpack("!i", head[-4:])
        kind = "startup" if startup else chr(head[0])
        return kind, head + await reader.readexactly(length - 4)

    def _read_startup(self, message: bytes) -> None:
        words = message[8:].split(b"\0")
        settings = dict(zip(words[::2], words[1::2], strict=False))
        self.name = settings.get(b"application_name", b"").decode()

    async def _forward(
        self, kind: str, message: bytes, sink: asyncio.StreamWriter, direction: Direction
    ) -> None:
        """Forward a message, or fail: after the message, after half of it, or before it."""
        trace = self._proxy.trace(self.name)
        if trace is None or trace.failed:
            sink.write(message)
            await sink.drain()
            return
        while direction is Direction.TO_SERVER and not trace.released.is_set():
            await asyncio.sleep(0.001)
        trace.pid = self._pid
        trace.messages[direction].append(kind)
        point, number = trace.point, len(trace.messages[direction])
        limit = point.server_limit if point is not None and direction is Direction.TO_SERVER else None
        if limit is not None and number > limit:
            return
        if point is None or point.direction is not direction or number < point.after + point.half:
            sink.write(message)
            await sink.drain()
            return
        trace.failed = True
        if number == point.after:
            sink.write(message)
        elif point.half:
            sink.write(message[: (len(message) + 1) // 2])
        self.fail(point.failure)

    def fail(self, failure: Failure) -> None:
        if failure is Failure.BLACKHOLE:
            self._silent = True
            return
        for _, writer in (self._client, self._server):
            peer = writer.get_extra_info("socket")
            if failure is Failure.RESET and peer.family == socket.AF_INET:
                with suppress(OSError):
                    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.close()


@contextmanager
def pg_proxy(server_socket: str) -> Iterator[PgProxy]:
    """A proxy of the server that listens on this unix socket."""
    proxy = PgProxy(server_socket)
    try:
        yield proxy
    finally:
        proxy.close()
