"""FLASHSALE_PAGE: without the page the server has neither /docs nor figures of what was sold."""

import json
import re
from datetime import UTC, datetime
from pathlib import Path

import falcon.testing
import psycopg

from api.app import create_app
from api.database.client import CheckoutClient
from api.database.functions import GetStockRow
from api.openapi.pages import docs_routes
from api.static_files import page_routes
from api.stock_feed import Limits, StockFeed, Subscriber
from api.webhook_signatures import SignatureVerifier
from flashsale.database.seed import APP_ROLE
from flashsale.local.cluster import Cluster
from tests.api.event_loop_clock import in_simulated_time
from tests.support.http import running_server

WARNING = "the demo page and /docs are served"


def test_no_page_is_served_but_those_of_problems() -> None:
    app = create_app(
        CheckoutClient("postgresql:///nowhere"),
        SignatureVerifier([], allow_unsigned=True),
        lambda: {},
        page=False,
    )
    for path in page_routes() | docs_routes():
        assert falcon.testing.simulate_get(app, path).json["code"] == "not_found", path
    assert falcon.testing.simulate_get(app, "/openapi.json").status_code == 200
    problem = falcon.testing.simulate_get(app, "/problems/insufficient_stock")
    assert problem.status_code == 200
    for path in re.findall(r'(?:src|href)="([^"]+)"', problem.text):
        assert falcon.testing.simulate_get(app, path).status_code == 200, path


class Selling:
    """Sells a unit at each poll, and takes one from the available units at each third."""

    def __init__(self) -> None:
        self.calls = 0

    async def get_stock(self, product_ids: list[int]) -> list[GetStockRow]:
        self.calls += 1
        available = 1000 - self.calls // 3
        return [
            GetStockRow(
                1, datetime.now(UTC), 1000, available, 1000 - available, 0, self.calls, "open", None, None, 2
            )
        ]


@in_simulated_time
async def test_the_stock_feed_has_the_available_units_alone() -> None:
    client = Selling()
    feed = StockFeed(client, Limits(poll_interval=0.02), with_taken_units=False)  # type: ignore[arg-type]
    stream = feed.events(1, Subscriber(), 0)
    await anext(stream)
    samples = [json.loads((await anext(stream)).serialize().partition(b"data: ")[2]) for _ in range(4)]
    await stream.aclose()
    feed.close()
    terms = {"sale_status", "starts_at", "ends_at", "max_per_buyer"}
    assert all(sample.keys() == {"at", "available"} | terms for sample in samples)
    # Nor does an event without a change tell that something was sold.
    assert [sample["available"] for sample in samples] == [1000, 999, 998, 997]


def test_gunicorn_warns_unless_the_page_is_configured(
    db: psycopg.Connection, cluster: Cluster, tmp_path: Path
) -> None:
    url = cluster.url(APP_ROLE, db.info.dbname)
    for value, is_warning in (("", True), ("1", False), ("0", False)):
        log = tmp_path / f"gunicorn{value}.log"
        with running_server(url, log, FLASHSALE_PAGE=value):
            assert (WARNING in log.read_text()) == is_warning
