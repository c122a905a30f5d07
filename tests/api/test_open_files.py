"""Open files: the soft limit is raised, and clients leave a reserve for the database."""

import http.client
import resource
import socket
from collections.abc import Iterator
from contextlib import ExitStack

import httpx
import psycopg
import pytest

from api.server.open_files import RESERVED_FILES
from flashsale.database.seed import APP_ROLE
from flashsale.local.cluster import Cluster
from tests.support.http import running_server
from tests.support.processes import gunicorn
from tests.support.waiting import wait_until

SPARE = 20
"""connections of clients beside the reserve"""


@pytest.fixture
def url(cluster: Cluster, db: psycopg.Connection) -> str:
    db.execute("select flashsale.create_product('Shoe', 50, 99, 'USD')")
    return cluster.url(APP_ROLE, db.info.dbname)


def test_the_soft_limit_is_raised_to_the_hard_limit(url, tmp_path):
    with running_server(url, tmp_path / "log", nofile=(256, 1000)):
        master, workers = gunicorn()
        for pid in (master, *workers):
            assert resource.prlimit(pid, resource.RLIMIT_NOFILE) == (1000, 1000)


@pytest.fixture
def crowded(url, tmp_path) -> Iterator[tuple[str, list[socket.socket]]]:
    """A server with as many idle clients as it admits."""
    limit = RESERVED_FILES + SPARE
    with running_server(url, tmp_path / "log", nofile=(limit, limit)) as base, ExitStack() as clients:
        host, port = httpx.URL(base).host, httpx.URL(base).port
        idle = [clients.enter_context(socket.create_connection((host, port), 10)) for _ in range(SPARE)]
        for client in idle:
            assert request(client, "GET /healthz") == 200
        yield base, idle


def request(client: socket.socket, line: str, body: bytes = b"") -> int:
    head = (
        f"{line} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    client.sendall(head.encode() + body)
    response = http.client.HTTPResponse(client)
    response.begin()
    response.read()
    return response.status


def test_a_client_beyond_the_limit_is_answered_at_once(crowded):
    base, idle = crowded
    refused = httpx.get(f"{base}/healthz", timeout=5)
    assert (refused.status_code, refused.json()["code"]) == (503, "overloaded")
    idle.pop().close()
    wait_until(lambda: httpx.get(f"{base}/healthz").status_code == 200, "the place is free again")


def test_connections_to_the_database_are_replaced_while_no_more_clients_are_admitted(crowded, db):
    _, idle = crowded
    ended = db.execute(
        "select count(pg_terminate_backend(pid, 5000)) from pg_stat_activity"
        " where datname = current_database() and usename = %s",
        (APP_ROLE,),
    ).fetchone()
    assert ended[0] > 0
    for client in idle[:3]:
        assert request(client, "POST /api/holds", b'{"product_id":1,"qty":1}') == 201
