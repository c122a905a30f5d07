"""A flood of signed webhooks for unknown orders: the inbox stays within its limit, checkout stays fast."""

import multiprocessing
import statistics
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager

import psycopg

from proof import webhook_flood as flood
from proof.campaign import Campaign
from proof.raw_http import JSON, RawConnection, request, send_webhook
from tests.api.test_webhook_signatures import BODY, NEW, signed
from tests.support.sale_steps import audit, create_product, one, order

BUYERS = 32
BASELINE_SECONDS = 3.0
"""seconds of each window without a flood"""


class Buyers:
    """`count` concurrent buyers, each placing a hold and an order again and again."""

    def __init__(self, server: str, product: int, count: int) -> None:
        self.latencies: list[tuple[float, float]] = []
        """when each request began, and the seconds until its response"""
        self.failed: list[BaseException] = []
        self._server = server
        self._hold = request(b"POST", b"/api/holds", JSON, b'{"product_id":%d,"qty":1}' % product)
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._buy) for _ in range(count)]

    @contextmanager
    def buying(self) -> Iterator[None]:
        for thread in self._threads:
            thread.start()
        try:
            yield
        finally:
            self._stop.set()
            for thread in self._threads:
                thread.join()

    def _buy(self) -> None:
        try:
            with RawConnection(self._server) as connection:
                while not self._stop.is_set():
                    hold = self._send(connection, self._hold)["hold_id"]
                    self._send(connection, request(b"POST", b"/api/orders", JSON, b'{"hold_id":%d}' % hold))
        except BaseException as error:
            self.failed.append(error)

    def _send(self, connection: RawConnection, data: bytes) -> dict:
        began = time.monotonic()
        connection.send(data)
        response = connection.response()
        self.latencies.append((began, time.monotonic() - began))
        assert response.status == 201, response
        return response.json

    def p99(self, began: float, ended: float) -> float:
        """Of the requests that began between the two."""
        latencies = [seconds for at, seconds in self.latencies if began <= at < ended]
        return statistics.quantiles(latencies, n=100)[98]


def test_a_flood_stays_within_the_inbox_limit(
    serve_signed: Callable[..., object], db: psycopg.Connection, campaign: Campaign
) -> None:
    windows, webhooks, limit = campaign.size((2, 250, 300), (15, 10_000, 10_000))
    product = create_product(db, stock=2_000_000_000)
    db.execute("select flashsale.change_settings(p_inbox_limit => %s, p_hold_time => '1 hour')", (limit,))
    responses: Counter[str] = Counter()
    baseline: list[float] = []
    flooded: list[float] = []
    spawn = multiprocessing.get_context("spawn")
    with serve_signed(NEW) as server, ProcessPoolExecutor(1, mp_context=spawn) as sender:
        buyers = Buyers(server, product, campaign.size(2, BUYERS))
        with buyers.buying():
            for window in range(windows):
                numbers = range(window * webhooks, (window + 1) * webhooks)
                prepared = sender.submit(flood.prepare, NEW, numbers, 10**12).result()
                began = time.monotonic()
                time.sleep(campaign.size(0.2, BASELINE_SECONDS))
                flood_began = time.monotonic()
                responses += sender.submit(flood.send, server, prepared).result()
                ended = time.monotonic()
                baseline.append(buyers.p99(began, flood_began))
                flooded.append(buyers.p99(flood_began, ended))
        assert buyers.failed == []
        assert responses == {"202": limit, "503 inbox_full": windows * webhooks - limit}
        assert one(db, "select stored from flashsale_data.inbox") == limit
        assert one(db, "select count(*) from flashsale_data.payments") == limit
        assert one(db, "select count(*) from flashsale_data.events where kind = 'payment_stored'") == limit
        # A webhook of a known order is served.
        body = BODY.replace(b"99", str(order(db, product)).encode())
        assert send_webhook(server, signed(NEW, body=body), body) == 200
    assert audit(db) == []
    before, during = statistics.median(baseline) * 1000, statistics.median(flooded) * 1000
    if campaign.full:
        assert during <= 2 * before, (baseline, flooded)
    campaign.record(
        f"a flood of {windows * webhooks:,} signed webhooks for unknown orders, {flood.CONNECTIONS} at once,"
        f" beside {campaign.size(2, BUYERS)} buyers with {len(buyers.latencies):,} requests",
        f"{limit:,} stored, the rest 503 inbox_full; checkout p99 {before:.1f} ms, then {during:.1f}",
        figures=f"p99 {before:.1f} ms, then {during:.1f}",
        webhooks=windows * webhooks,
        checkout_requests=len(buyers.latencies),
    )
