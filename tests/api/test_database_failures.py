"""A locked, absent, disconnected or silent database: a fast 503 that says whether anything was done."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import httpx
import psycopg

from flashsale.database.seed import APP_ROLE
from flashsale.local.cluster import Cluster
from tests.api.backends import backends, lock_product
from tests.support.database import unreachable
from tests.support.http import running_server
from tests.support.metrics_scrape import watched_server
from tests.support.waiting import wait_until, wait_until_blocked

HOLD = {"product_id": 1, "qty": 1}


def assert_503(answer: httpx.Response, code: str) -> None:
    """Quickly: how quickly is tested with the limits (test_batching.py); a busy machine adds to it."""
    assert (answer.status_code, answer.json()["code"]) == (503, code)
    assert int(answer.headers["retry-after"]) >= 1
    assert answer.elapsed.total_seconds() < 5


def test_a_locked_product_is_busy_and_delays_no_other(
    client: httpx.Client, db: psycopg.Connection, connect: Callable[..., psycopg.Connection]
) -> None:
    db.execute("select flashsale.create_product('Hat', 2147483647, 1, 'USD')")
    operator = connect(autocommit=False)
    lock_product(operator, 1)
    meanwhile = 0
    with ThreadPoolExecutor(4) as buyers:
        stuck = [buyers.submit(client.post, "/api/holds", json=HOLD) for _ in range(4)]
        while not any(future.done() for future in stuck):
            assert client.post("/api/holds", json={"product_id": 2, "qty": 1}).status_code == 201
            meanwhile += 1
        for future in stuck:
            assert_503(future.result(), "busy")
    assert meanwhile > 10, "others bought one after the other while these waited"
    assert client.get("/api/products/1").status_code == 200, "a read waits for no lock"
    operator.rollback()
    assert client.post("/api/holds", json=HOLD).status_code == 201


def test_connections_that_the_server_closed_are_replaced(
    client: httpx.Client, db: psycopg.Connection
) -> None:
    for _ in range(3):
        assert client.post("/api/holds", json=HOLD).status_code == 201
        assert client.get("/api/products").status_code == 200
        assert client.get("/readyz").status_code == 200
        ended = backends(db)
        assert ended
        db.execute("select pg_terminate_backend(pid, 5000) from unnest(%s::int[]) pid", (ended,))


def test_a_write_whose_connection_closes_during_the_call_has_an_unknown_outcome(
    cluster: Cluster, db: psycopg.Connection, connect: Callable[..., psycopg.Connection], tmp_path: Path
) -> None:
    db.execute("select flashsale.create_product('Shoe', 50, 99, 'USD')")
    operator = connect(autocommit=False)
    lock_product(operator, 1)
    headers = {"Idempotency-Key": "retry-me"}
    # What the URL says wins: the call must not give up before its connection is ended.
    url = psycopg.conninfo.make_conninfo(
        cluster.url(APP_ROLE, db.info.dbname), options="-c lock_timeout=0 -c statement_timeout=0"
    )
    with (
        running_server(url, tmp_path / "gunicorn.log") as server,
        httpx.Client(base_url=server, timeout=10) as client,
        ThreadPoolExecutor(1) as buyer,
    ):
        (pid,) = backends(db, "flashsale place_holds fast")
        answer = buyer.submit(client.post, "/api/holds", json=HOLD, headers=headers)
        wait_until_blocked(pid, watcher=db)
        db.execute("select pg_terminate_backend(%s)", (pid,))
        assert_503(answer.result(), "outcome_unknown")
        operator.rollback()
        assert client.post("/api/holds", json=HOLD, headers=headers).status_code == 201
        again = client.post("/api/holds", json=HOLD, headers=headers)
        assert again.headers["idempotency-replayed"] == "true"
        assert client.get("/api/products/1").json()["available_stock"] == 49


def test_a_database_that_goes_and_comes_back(
    client: httpx.Client, db: psycopg.Connection, connect: Callable[..., psycopg.Connection]
) -> None:
    with unreachable(db):
        assert_503(client.post("/api/holds", json=HOLD), "unavailable")
        assert_503(client.get("/api/products/1"), "unavailable")
        assert_503(client.get("/api/products"), "unavailable")
        assert_503(client.get("/readyz"), "not_ready")
        assert client.get("/healthz").status_code == 200
    began = time.monotonic()
    for path in ("/api/products/1", "/api/products"):
        wait_until(lambda path=path: client.get(path).status_code == 200, f"{path} is back", timeout=5)
    wait_until(lambda: client.post("/api/holds", json=HOLD).status_code == 201, "holds are back", timeout=5)
    assert time.monotonic() - began < 5


IDLE_CONNECTIONS = 10
"""of a server that has not been asked anything"""


def test_idle_connections_are_replaced_without_a_request(
    cluster: Cluster, db: psycopg.Connection, tmp_path: Path
) -> None:
    with watched_server(cluster.url(APP_ROLE, db.info.dbname), tmp_path / "gunicorn.log") as (_, metrics):
        assert metrics("flashsale_db_connections") == IDLE_CONNECTIONS
        with unreachable(db):
            wait_until(lambda: metrics("flashsale_db_connections") == 0, "closed ones are not counted")
            wait_until(lambda: metrics("flashsale_db_connects_total", outcome="failed") > 7, "it tries again")
        wait_until(lambda: metrics("flashsale_db_connections") == IDLE_CONNECTIONS, "all are back")
        assert len(backends(db)) == IDLE_CONNECTIONS
        assert metrics("flashsale_db_connects_total", outcome="connected") == 2 * IDLE_CONNECTIONS
        log = (tmp_path / "gunicorn.log").read_text()
        assert log.count("place_holds: no connection to the database") <= 2, "once for each reason"
        assert log.count("place_holds: connected to the database") == 1


def test_a_server_that_starts_before_its_database_connects_without_a_request(
    cluster: Cluster, db: psycopg.Connection, tmp_path: Path
) -> None:
    with unreachable(db), ExitStack() as started:
        url = cluster.url(APP_ROLE, db.info.dbname)
        _, metrics = started.enter_context(watched_server(url, tmp_path / "gunicorn.log"))
        assert metrics("flashsale_db_connections") == 0
        ended = started.pop_all()
    with ended:
        wait_until(lambda: metrics("flashsale_db_connections") == IDLE_CONNECTIONS, "it connects")


def test_a_database_that_was_never_there(tmp_path: Path) -> None:
    with (
        running_server(f"host={tmp_path} dbname=nowhere", tmp_path / "gunicorn.log") as url,
        httpx.Client(base_url=url) as client,
    ):
        assert client.get("/healthz").status_code == 200
        assert_503(client.get("/readyz"), "not_ready")
        for _ in range(2):
            assert_503(client.post("/api/holds", json=HOLD), "unavailable")
            assert_503(client.get("/api/products"), "unavailable")


def test_functions_reloaded_under_a_prepared_statement_are_found_again(
    client: httpx.Client, db: psycopg.Connection
) -> None:
    assert client.get("/api/products/1").status_code == 200
    (definition,) = db.execute(
        "select pg_get_functiondef('flashsale.get_products(int[], bigint[])'::regprocedure)"
    ).fetchone()
    with db.transaction():
        db.execute("drop function flashsale.get_products(int[], bigint[])")
        db.execute(definition)
        db.execute("grant execute on function flashsale.get_products(int[], bigint[]) to flashsale_api")
        db.execute("alter function flashsale.get_products(int[], bigint[]) owner to flashsale_owner")
    assert client.get("/api/products/1").status_code == 200
