"""A wire between API and database that knows where PostgreSQL's messages end, and can be cut at any of them.

It listens on a loopback port and carries each connection to the server's unix socket, message by message
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


class To(enum.Enum):
    """The direction in which a message travels."""

    SERVER = "to the server"
    CLIENT = "to the client"


class Manner(enum.Enum):
    """How a wire ends."""

    CLOSE = "closed"
    RESET = "reset"
    SILENCE = "silent"
    """open, but nothing passes any more"""


@dataclass(frozen=True)
class Cut:
    """Where to cut, counted in messages since the wire was armed.

    :param after: so many messages pass that way; 0 withholds the first
    :param half: and so does the first half of the next one
    :param withheld: until then only so many messages pass to the server
    """

    to: To
    after: int
    half: bool = False
    manner: Manner = Manner.CLOSE
    withheld: int | None = None

    def __str__(self) -> str:
        half = " and a half" if self.half else ""
        withheld = "" if self.withheld is None else f", no more than {self.withheld} to the server"
        return f"{self.manner.value} after {self.after}{half} {self.to.value}{withheld}"


@dataclass
class Watch:
    """What is being waited for on the next connection of a name, and what it has seen.

    :ivar seen: types of the messages that came, by direction; "startup" for a client's first
    :ivar pid: the backend behind the connection, once it has said so
    :ivar opened: nothing passes to the server until then
    """

    cut: Cut | None
    seen: dict[To, list[str]] = field(default_factory=lambda: {to: [] for to in To})
    done: bool = False
    pid: int | None = None
    opened: threading.Event = field(default_factory=threading.Event)


class Wire:
    """All connections between one client and one server. Made by `wire()`."""

    def __init__(self, server_socket: str) -> None:
        self._server_socket = server_socket
        self._watches: dict[str, Watch] = {}
        self._connections: set[_Connection] = set()
        self._loop = asyncio.new_event_loop()
        self._listener = self._loop.run_until_complete(asyncio.start_server(self._serve, "127.0.0.1", 0))
        self.port: int = self._listener.sockets[0].getsockname()[1]
        self._thread = threading.Thread(target=self._loop.run_forever, name="wire")
        self._thread.start()

    def arm(self, name: str, cut: Cut | None, *, opened: bool = True) -> Watch:
        """Cut the connection of this name at `cut`, once; None only looks on."""
        self._watches[name] = watch = Watch(cut)
        if opened:
            watch.opened.set()
        return watch

    def hang_up(self, name: str) -> None:
        """End the connections of this name, so that the client makes a new one."""
        asyncio.run_coroutine_threadsafe(self._hang_up(name), self._loop).result()

    async def _hang_up(self, name: str) -> None:
        ended = [connection for connection in self._connections if connection.name == name]
        for connection in ended:
            connection.end(Manner.CLOSE)
        for connection in ended:
            await connection.ended.wait()

    def watch(self, name: str) -> Watch | None:
        return self._watches.get(name)

    async def _serve(self, *client: asyncio.StreamReader | asyncio.StreamWriter) -> None:
        try:
            server = await asyncio.open_unix_connection(self._server_socket)
        except OSError:
            client[1].transport.abort()
            return
        connection = _Connection(self, client, server)
        self._connections.add(connection)
        try:
            await connection.carry()
        finally:
            self._connections.discard(connection)

    def close(self) -> None:
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _close(self) -> None:
        self._listener.close()
        ended = list(self._connections)
        for connection in ended:
            connection.end(Manner.RESET)
        for connection in ended:
            await connection.ended.wait()


class _Connection:
    def __init__(self, wire: Wire, client: Streams, server: Streams) -> None:
        self._wire = wire
        self._client = client
        self._server = server
        self._pid: int | None = None
        self._silent = False
        self.name = ""
        self.ended = asyncio.Event()

    async def carry(self) -> None:
        """Until either side has left."""
        try:
            await asyncio.gather(
                self._pump(self._client[0], self._server[1], To.SERVER),
                self._pump(self._server[0], self._client[1], To.CLIENT),
            )
            for _, writer in (self._client, self._server):
                with suppress(OSError):
                    await writer.wait_closed()
        finally:
            self.ended.set()

    async def _pump(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, to: To) -> None:
        first = to is To.SERVER
        with suppress(OSError, EOFError):
            while True:
                kind, message = await self._read(source, first)
                if first:
                    self._introduce(message)
                    first = False
                if kind == "K":
                    (self._pid,) = struct.unpack("!i", message[5:9])
                if not self._silent:
                    await self._pass(kind, message, sink, to)
        self.end(Manner.CLOSE)

    @staticmethod
    async def _read(reader: asyncio.StreamReader, startup: bool) -> tuple[str, bytes]:
        head = await reader.readexactly(4 if startup else 5)
        (length,) = struct.unpack("!i", head[-4:])
        kind = "startup" if startup else chr(head[0])
        return kind, head + await reader.readexactly(length - 4)

    def _introduce(self, startup: bytes) -> None:
        words = startup[8:].split(b"\0")
        settings = dict(zip(words[::2], words[1::2], strict=False))
        self.name = settings.get(b"application_name", b"").decode()

    async def _pass(self, kind: str, message: bytes, sink: asyncio.StreamWriter, to: To) -> None:
        """Hand a message on, or cut, with the message or a part of it gone through or not."""
        watch = self._wire.watch(self.name)
        if watch is None or watch.done:
            sink.write(message)
            await sink.drain()
            return
        while to is To.SERVER and not watch.opened.is_set():
            await asyncio.sleep(0.001)
        watch.pid = self._pid
        watch.seen[to].append(kind)
        cut, number = watch.cut, len(watch.seen[to])
        if cut is not None and to is To.SERVER and cut.withheld is not None and number > cut.withheld:
            return
        if cut is None or cut.to is not to or number < cut.after + cut.half:
            sink.write(message)
            await sink.drain()
            return
        watch.done = True
        if number == cut.after:
            sink.write(message)
        elif cut.half:
            sink.write(message[: (len(message) + 1) // 2])
        self.end(cut.manner)

    def end(self, manner: Manner) -> None:
        if manner is Manner.SILENCE:
            self._silent = True
            return
        for _, writer in (self._client, self._server):
            peer = writer.get_extra_info("socket")
            if manner is Manner.RESET and peer.family == socket.AF_INET:
                with suppress(OSError):
                    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.close()


@contextmanager
def wire(server_socket: str) -> Iterator[Wire]:
    """A wire to the server that listens on this unix socket."""
    made = Wire(server_socket)
    try:
        yield made
    finally:
        made.close()
