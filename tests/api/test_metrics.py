"""GET /metrics: counts are exact, whichever worker serves the scrape."""

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import httpx
import psycopg
import pytest

from api.payment_events import RESULTS
from flashsale.database.seed import APP_ROLE
from flashsale.local.cluster import Cluster
from tests.api.raw_connection import send_raw
from tests.support.database import unreachable
from tests.support.metrics_scrape import Metrics, watched_server
from tests.support.waiting import wait_until

Watched = tuple[httpx.Client, Metrics]


@pytest.fixture
def app_url(db: psycopg.Connection, cluster: Cluster) -> str:
    """As the server logs in, to a database with a product 1 of 50 units."""
    db.execute("select flashsale.create_product('Shoe', 50, 99, 'USD')")
    return cluster.url(APP_ROLE, db.info.dbname)


@pytest.fixture
def watched(app_url: str, tmp_path: Path) -> Iterator[Watched]:
    with watched_server(app_url, tmp_path / "gunicorn.log") as server:
        yield server


def hold(client: httpx.Client, qty: int = 1, key: str | None = None, close: bool = False) -> httpx.Response:
    headers = ({"Idempotency-Key": key} if key else {}) | ({"Connection": "close"} if close else {})
    return client.post("/api/holds", json={"product_id": 1, "qty": qty}, headers=headers)


def test_requests_are_counted_by_route_and_status_and_problems_by_code(watched: Watched) -> None:
    client, metrics = watched
    for _ in range(3):
        hold(client)
    hold(client, key="cart-7")
    hold(client, key="cart-7")
    hold(client, qty=60)
    client.get("/api/products/2")
    client.get("/nowhere/4872316950284173")
    send_raw(str(client.base_url), b"no HTTP\r\n\r\n")  # never gets to the application

    holds = {"method": "POST", "route": "/api/holds"}
    assert metrics("flashsale_http_requests_total", **holds, status="201") == 5
    assert metrics("flashsale_http_requests_total", **holds, status="409") == 1
    assert metrics("flashsale_http_requests_total", route="/api/products/{product_id}", status="404") == 1
    assert metrics("flashsale_http_requests_total", route="", status="404") == 1
    assert metrics("flashsale_http_requests_total", route="", status="400") == 1
    assert metrics("flashsale_http_request_duration_seconds_count", **holds) == 6
    assert metrics("flashsale_http_request_duration_seconds_bucket", **holds, le="+Inf") == 6
    assert 0 < metrics("flashsale_http_request_duration_seconds_sum", **holds) < 60
    for code in ("insufficient_stock", "product_not_found", "not_found", "bad_request"):
        assert metrics("flashsale_problems_total", code=code) == 1
    assert metrics("flashsale_problems_total", code="internal_error") == 0
    assert metrics("flashsale_replays_total", route="/api/holds") == 1
    assert metrics("flashsale_batch_size_sum", function="place_holds", path="fast") == 6
    assert metrics("flashsale_db_connects_total", function="place_holds", outcome="connected") == 1
    assert "4872316950284173" not in metrics.text()


def test_each_port_serves_only_its_application(watched: Watched) -> None:
    client, metrics = watched
    assert client.get("/metrics").status_code == 404
    assert httpx.get(metrics.url.replace("/metrics", "/api/products")).status_code == 404

    answer = httpx.get(metrics.url, headers={"Accept": "application/openmetrics-text; version=1.0.0"})
    assert answer.headers["content-type"].startswith("application/openmetrics-text")
    assert answer.text.endswith("# EOF\n")

    reads = {metrics("flashsale_database_read_seconds") for _ in range(20)}
    assert len(reads) < 10, "the database is not asked for each scrape"


def test_sale_metrics_equal_sql(watched: Watched, db: psycopg.Connection) -> None:
    client, metrics = watched
    first, second = (hold(client, qty).json()["hold_id"] for qty in (2, 3))
    hold(client, 4)
    made = [client.post("/api/orders", json={"hold_id": id_}).json()["order_id"] for id_ in (first, second)]
    for key, order in (("pay_1", made[0]), ("pay_2", made[0]), ("stored", 10**6)):
        event = {"idempotency_key": key, "order_id": order, "status": "success"}
        client.post("/api/payments/webhook", json=event)

    row = db.execute(
        "select available_stock, held, awaiting, paid, total_stock from flashsale.stock"
    ).fetchone()
    assert row == (41, 4, 3, 2, 50)
    for state, units in zip(("available", "held", "awaiting", "paid"), row, strict=False):
        assert metrics("flashsale_stock_units", product_id="1", state=state) == units
    assert metrics("flashsale_stock_total_units", product_id="1") == 50
    assert metrics("flashsale_refunds_due") == 1
    assert metrics("flashsale_inbox_webhooks") == 1
    assert metrics("flashsale_inbox_limit") == 10_000
    (events,) = db.execute("select count(*) from flashsale_data.events").fetchone()
    assert metrics("flashsale_ledger_events_total") == events
    assert metrics("flashsale_database_up") == 1


def test_webhooks_are_counted_by_result_and_replays_are_not(watched: Watched) -> None:
    client, metrics = watched
    name = "flashsale_webhooks_total"
    # From the start, or increase() in ops/alerts.yml would miss the first ones.
    assert f'{name}{{result="amount_mismatch",status="success"}} 0.0' in metrics.text()
    order = client.post("/api/orders", json={"hold_id": hold(client).json()["hold_id"]}).json()["order_id"]
    for key, order_id, status, amount in (
        ("cheap", order, "success", "1.00"),
        ("cheap", order, "success", "1.00"),
        ("cheap again", order, "success", "98.00"),
        ("right", order, "success", "99.00"),
        ("late", order, "failed", "99.00"),
        ("early", 10**6, "success", "99.00"),
        ("no such status", order, "paid", "99.00"),
    ):
        event = {"idempotency_key": key, "order_id": order_id, "status": status, "amount": amount}
        client.post("/api/payments/webhook", json=event)
    counts = {result: metrics(name, status="success", result=result) for result in RESULTS}
    assert counts == {"applied": 1, "no_change": 0, "refund_due": 0, "amount_mismatch": 2, "stored": 1}
    assert metrics(name, status="failed", result="no_change") == 1
    assert metrics(name) == 5


def test_a_scrape_without_the_database(watched: Watched, db: psycopg.Connection) -> None:
    client, metrics = watched
    hold(client)
    with unreachable(db):
        assert hold(client).status_code == 503
        wait_until(lambda: metrics("flashsale_database_up") == 0, "the scrape notices")
        text = metrics.text()
        assert "flashsale_stock_units{" not in text
        assert metrics("flashsale_http_requests_total", route="/api/holds", status="503") == 1
        assert metrics("flashsale_problems_total", code="unavailable") == 1
        assert metrics("flashsale_calls_failed_total", function="place_holds") == 1
        assert metrics("flashsale_db_connections", function="place_holds") == 0
    wait_until(lambda: metrics("flashsale_database_up") == 1, "the scrape notices")


def started(log: Path) -> list[int]:
    """Process ids of the workers that have ever been ready."""
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    return [line["pid"] for line in lines if line["message"] == "Application startup complete."]


@pytest.mark.slow
def test_workers_share_counters_and_a_dead_one_loses_none(app_url: str, tmp_path: Path) -> None:
    log, shared = tmp_path / "gunicorn.log", tmp_path / "shared"
    shared.mkdir()
    with watched_server(app_url, log, WEB_CONCURRENCY="2", TMPDIR=str(shared)) as (client, metrics):
        wait_until(lambda: len(started(log)) == 2, "both workers have started")
        assert metrics("flashsale_workers") == 2

        def served() -> float:
            return metrics("flashsale_http_requests_total", route="/api/holds")

        for _ in range(40):
            assert hold(client, close=True).status_code == 201
        wait_until(lambda: served() == 40, "both workers' requests are counted")
        assert {served() for _ in range(10)} == {40}, "whichever worker responds"
        assert metrics("flashsale_http_request_duration_seconds_count", route="/api/holds") == 40
        assert metrics("flashsale_batch_size_sum", function="place_holds") == 40
        assert metrics("flashsale_db_connections") == 20
        wait_until(  # what a scrape read is good for a second
            lambda: metrics("flashsale_stock_units", product_id="1", state="held") == 40, "the stock is read"
        )

        os.kill(started(log)[0], signal.SIGKILL)
        wait_until(lambda: len(started(log)) == 3, "another takes its place")
        assert metrics("flashsale_workers") == 2
        for _ in range(10):
            assert hold(client, close=True).status_code == 201
        wait_until(lambda: served() == 50, "the dead worker's requests are counted, and the new ones")
        assert metrics("flashsale_db_connections") == 20
        assert list(shared.iterdir())
    assert not list(shared.iterdir()), "nothing is left behind"
