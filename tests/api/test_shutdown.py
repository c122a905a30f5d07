"""What becomes of connections when the server shuts down."""

import http.client
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
import pytest

from api.server.http_protocol import SHUTDOWN_GRACE_SECONDS
from flashsale.database.seed import APP_ROLE
from flashsale.local.cluster import Cluster
from tests.support import processes
from tests.support.http import running_server
from tests.support.waiting import wait_until


@pytest.fixture
def connect(db: psycopg.Connection, cluster: Cluster, tmp_path: Path) -> Iterator:
    with running_server(cluster.url(APP_ROLE, db.info.dbname), tmp_path / "gunicorn.log") as base:

        @contextmanager
        def connected() -> Iterator[http.client.HTTPConnection]:
            conn = http.client.HTTPConnection(urlsplit(base).netloc, timeout=20)
            conn.connect()
            yield conn
            conn.close()

        yield connected


def get(conn: http.client.HTTPConnection) -> http.client.HTTPResponse:
    conn.request("GET", "/healthz")
    response = conn.getresponse()
    assert (response.status, b"alive" in response.read()) == (200, True)
    return response


def shut_down(log: Path) -> None:
    master, _ = processes.gunicorn()
    os.kill(master, signal.SIGTERM)
    wait_until(lambda: "Shutting down" in log.read_text(), "the worker has begun to shut down")


def test_a_request_over_an_idle_connection_is_still_served(connect, tmp_path: Path) -> None:
    with connect() as kept, connect() as new:
        assert get(kept).getheader("connection") is None
        shut_down(tmp_path / "gunicorn.log")
        for conn in (kept, new):
            assert get(conn).getheader("connection") == "close"


def test_an_idle_connection_is_closed_after_the_grace(connect, tmp_path: Path) -> None:
    with connect() as kept:
        get(kept)
        begin = time.monotonic()
        shut_down(tmp_path / "gunicorn.log")
        assert kept.sock.recv(1) == b""
        assert SHUTDOWN_GRACE_SECONDS - 0.1 < time.monotonic() - begin < SHUTDOWN_GRACE_SECONDS + 5
