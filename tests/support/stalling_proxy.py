"""A proxy before PostgreSQL that stops to answer, in the ways in which a server or a network does."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from flashsale.local.cluster import PORT, Cluster


class StallingProxy:
    """Connections to a database over TCP.

    hang()   nothing is answered, and nothing refused: the machine has lost its network
    resume() all that waited goes on
    cut_after(text)   the connection of the next request with this text breaks instead of its answer
    """

    def __init__(self, cluster: Cluster, listener: socket.socket) -> None:
        self._path = f"{cluster.socket_directory}/.s.PGSQL.{PORT}"
        self._listener = listener
        self._flows = threading.Event()
        self._flows.set()
        self._cut_after: bytes | None = None
        self._sockets: list[socket.socket] = []
        threading.Thread(target=self._serve, daemon=True).start()

    def url(self, user: str, dbname: str) -> str:
        port = self._listener.getsockname()[1]
        return f"postgresql://{user}@127.0.0.1:{port}/{dbname}?sslmode=disable&gssencmode=disable"

    def hang(self) -> None:
        self._flows.clear()

    def resume(self) -> None:
        self._flows.set()

    def cut_after(self, text: str) -> None:
        self._cut_after = text.encode()

    def close(self) -> None:
        self._flows.set()
        for each in self._sockets:
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.socket(socket.AF_UNIX)
                server.connect(self._path)
                self._sockets += [client, server]
                is_cut = threading.Event()
                for source, target in ((client, server), (server, client)):
                    threading.Thread(target=self._relay, args=(source, target, is_cut), daemon=True).start()

    def _relay(self, source: socket.socket, target: socket.socket, is_cut: threading.Event) -> None:
        is_request = source.family == socket.AF_INET
        with suppress(OSError):
            while data := source.recv(65536):
                self._flows.wait()
                if is_request and self._cut_after is not None and self._cut_after in data:
                    self._cut_after = None
                    is_cut.set()
                if not is_request and is_cut.is_set():
                    # ReadyForQuery: the statement has committed.
                    if data.endswith(b"Z\0\0\0\5I"):
                        target.shutdown(socket.SHUT_RDWR)
                        return
                    continue
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)


@contextmanager
def stalling_proxy(cluster: Cluster) -> Iterator[StallingProxy]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        proxy = StallingProxy(cluster, listener)
        try:
            yield proxy
        finally:
            proxy.close()
