"""FLASHSALE_KEEPALIVE_SECONDS: how long a connection without a request stays open."""

import socket
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
import pytest

from flashsale.database.seed import APP_ROLE
from flashsale.local.cluster import Cluster
from tests.support.http import running_server

SECONDS = 2
TICK = 0.05  # the server's clock and ours are read at slightly different moments


@pytest.fixture
def connection(db: psycopg.Connection, cluster: Cluster, tmp_path: Path) -> Iterator[socket.socket]:
    """Open, with nothing sent; its reads fail long before the default would end it."""
    url = cluster.url(APP_ROLE, db.info.dbname)
    with running_server(url, tmp_path / "log", FLASHSALE_KEEPALIVE_SECONDS=str(SECONDS)) as base:
        address = urlsplit(base)
        with socket.create_connection((address.hostname, address.port), timeout=20) as opened:
            yield opened


def seconds_until_closed(connection: socket.socket) -> float:
    begin = time.monotonic()
    assert connection.recv(1) == b"", "the server closes without a word"
    return time.monotonic() - begin


def get(connection: socket.socket) -> None:
    connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: shop\r\n\r\n")
    answer = b""
    while b'"alive"' not in answer:
        answer += connection.recv(65536)
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert b"connection: close" not in answer.lower()


def test_an_idle_connection_is_closed_after_that_time_and_not_before(connection: socket.socket) -> None:
    get(connection)
    assert SECONDS - TICK < seconds_until_closed(connection) < SECONDS + 5


def test_the_time_begins_anew_with_each_response(connection: socket.socket) -> None:
    begin = time.monotonic()
    while time.monotonic() - begin < SECONDS + 0.5:
        get(connection)
    assert SECONDS - TICK < seconds_until_closed(connection) < SECONDS + 5


def test_a_connection_without_any_request_is_closed_too(connection: socket.socket) -> None:
    assert SECONDS - 0.5 < seconds_until_closed(connection) < SECONDS + 5
