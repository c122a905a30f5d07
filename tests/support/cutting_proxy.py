"""A proxy before PostgreSQL that loses the answers to a statement."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from psycopg.conninfo import make_conninfo

from flashsale.local.cluster import PORT, Cluster


@contextmanager
def losing_answers(cluster: Cluster, url: str, statement: bytes, times: int = 1) -> Iterator[str]:
    """A URL like `url`. The server runs the statements that contain `statement`, but the connection breaks
    instead of their answers; after so many times nothing breaks any more."""
    left = [times]
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            with suppress(OSError):
                while True:
                    client, _ = listener.accept()
                    threading.Thread(target=relay, args=(client,), daemon=True).start()

        def relay(client: socket.socket) -> None:
            server = socket.socket(socket.AF_UNIX)
            server.connect(f"{cluster.socket_directory}/.s.PGSQL.{PORT}")
            said = threading.Event()

            def requests() -> None:
                with suppress(OSError):
                    while data := client.recv(65536):
                        if left[0] and statement in data:
                            left[0] -= 1
                            said.set()
                        server.sendall(data)
                    server.shutdown(socket.SHUT_WR)

            threading.Thread(target=requests, daemon=True).start()
            with suppress(OSError), client, server:
                while data := server.recv(65536):
                    # ReadyForQuery: the statement has committed.
                    if said.is_set() and data.endswith(b"Z\0\0\0\5I"):
                        client.shutdown(socket.SHUT_RDWR)
                        return
                    if not said.is_set():
                        client.sendall(data)

        threading.Thread(target=serve, daemon=True).start()
        port = listener.getsockname()[1]
        yield make_conninfo(url, host="127.0.0.1", port=port, sslmode="disable", gssencmode="disable")
