"""A pooler in transaction mode, as PgBouncer is one: a session of the server serves a client until its
transaction ends, and then another client.
"""

import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from psycopg.conninfo import make_conninfo

from flashsale.local.cluster import PORT, Cluster
from tests.support.http import free_port

_SSL_REQUEST, _GSS_REQUEST = 80877103, 80877104


class TransactionPooler:
    """Listens on a loopback port; the idle session that was used last is used next."""

    def __init__(self, cluster: Cluster) -> None:
        self.port = free_port()
        self._server = str(cluster.socket_directory / f".s.PGSQL.{PORT}")
        self._listener = socket.create_server(("127.0.0.1", self.port))
        self._idle: dict[tuple[bytes, bytes], list[_Session]] = {}
        self._sockets: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def url(self, user: str, dbname: str) -> str:
        return make_conninfo(host="127.0.0.1", port=self.port, user=user, dbname=dbname, sslmode="disable")

    def close(self) -> None:
        # A thread that waits for a connection or a message is woken by the shutdown.
        for each in (self._listener, *self._sockets):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                self._sockets.append(client)
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        session = None
        with suppress(OSError, EOFError), client:
            startup = _read_startup(client)
            # Clients with the same role and database share sessions.
            words = startup[8:].split(b"\0")
            parameters = dict(zip(words[::2], words[1::2], strict=False))
            pool = self._idle.setdefault((parameters[b"user"], parameters[b"database"]), [])
            session = self._take(pool, startup)
            client.sendall(session.greeting)
            pool.append(session)
            session = None
            while True:
                request, kind = b"", b""
                while kind not in (b"Q", b"S"):
                    kind, message = _read_message(client)
                    if kind == b"X":
                        return
                    request += message
                session = session or self._take(pool, startup)
                session.socket.sendall(request)
                while kind != b"Z":
                    kind, message = _read_message(session.socket)
                    client.sendall(message)
                if message.endswith(b"I"):
                    pool.append(session)
                    session = None

    def _take(self, pool: list["_Session"], startup: bytes) -> "_Session":
        if pool:
            return pool.pop()
        server = socket.socket(socket.AF_UNIX)
        server.connect(self._server)
        self._sockets.append(server)
        return _Session(server, startup)


class _Session:
    """A session of the server, and what it says after the start but for its process id."""

    def __init__(self, server: socket.socket, startup: bytes) -> None:
        self.socket = server
        server.sendall(startup)
        self.greeting, kind = b"", b""
        while kind != b"Z":
            kind, message = _read_message(server)
            self.greeting += b"K" + struct.pack("!iii", 12, 7, 7) if kind == b"K" else message


def _read_startup(client: socket.socket) -> bytes:
    while True:
        length = _read(client, 4)
        packet = _read(client, struct.unpack("!i", length)[0] - 4)
        if struct.unpack("!i", packet[:4])[0] not in (_SSL_REQUEST, _GSS_REQUEST):
            return length + packet
        client.sendall(b"N")


def _read_message(peer: socket.socket) -> tuple[bytes, bytes]:
    header = _read(peer, 5)
    return header[:1], header + _read(peer, struct.unpack("!i", header[1:])[0] - 4)


def _read(peer: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        part = peer.recv(size - len(data))
        if not part:
            raise EOFError
        data += part
    return data


@contextmanager
def transaction_pooler(cluster: Cluster) -> Iterator[TransactionPooler]:
    pooler = TransactionPooler(cluster)
    try:
        yield pooler
    finally:
        pooler.close()
