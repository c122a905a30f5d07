"""What SQL tells of the sale at each scrape: flashsale.get_figures().

It goes over a connection of its own, made for it and closed after it, so that a scrape never waits for
buyers nor they for it. However many scrape, it is asked at most once a second.
"""

import asyncio
import time
from collections.abc import Callable, Iterator

import psycopg
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric

from api.database import functions
from api.database.batching import Row
from api.database.connection import CONNECT_TIMEOUT, connection_string

KEEP = 1.0
"""seconds for which an answer, or that there is none, counts as new"""
TIMEOUT = 2.0
"""seconds for all of it; the server gives up after lanes.STATEMENT_TIMEOUT"""

_STATES = ("available", "held", "awaiting", "paid")

_OF_ALL: dict[str, Callable[[], GaugeMetricFamily | CounterMetricFamily]] = {
    "refunds_due": lambda: GaugeMetricFamily(
        "flashsale_refunds_due", "Captured payments that paid no order; counted up to 10,000."
    ),
    "inbox": lambda: GaugeMetricFamily(
        "flashsale_inbox_webhooks", "Webhooks stored until their order comes."
    ),
    "inbox_limit": lambda: GaugeMetricFamily("flashsale_inbox_limit", "How many may be stored."),
    "sweep_lag": lambda: GaugeMetricFamily(
        "flashsale_sweep_lag_seconds", "How long the oldest lapsed instant has waited to be swept."
    ),
    "scheduler_alive": lambda: GaugeMetricFamily(
        "flashsale_scheduler_alive", "1 if pg_cron sweeps this database on time."
    ),
    "scheduler_lag": lambda: GaugeMetricFamily(
        "flashsale_scheduler_lag_seconds", "Since sweep() last ran, or was scheduled."
    ),
    "ledger_events": lambda: CounterMetricFamily("flashsale_ledger_events", "Events appended to the ledger."),
}
"""By the figure's name."""


class Figures:
    """The newest figures, as a source of metrics (api/telemetry/metrics.py).

    :param url: libpq connection string or URI
    """

    def __init__(self, url: str) -> None:
        self._conninfo = connection_string(url, "flashsale metrics", lock_timeout=100)
        self._rows: list[Row] | None = None
        self._seconds = 0.0
        self._read_at = float("-inf")
        self._turn = asyncio.Lock()

    async def read(self) -> None:
        """Ask for them, unless that has just been done. No answer is no error: database_up tells."""
        async with self._turn:
            began = time.monotonic()
            if began - self._read_at < KEEP:
                return
            try:
                async with asyncio.timeout(TIMEOUT):
                    self._rows = await self._ask()
            except (psycopg.Error, OSError, TimeoutError):
                self._rows = None
            self._read_at = time.monotonic()
            self._seconds = self._read_at - began

    async def _ask(self) -> list[Row]:
        async with asyncio.timeout(CONNECT_TIMEOUT):
            connection = await psycopg.AsyncConnection.connect(self._conninfo, autocommit=True)
        async with connection:
            return await (await connection.execute(functions.GET_FIGURES)).fetchall()

    def collect(self) -> Iterator[Metric]:
        rows = self._rows
        up = GaugeMetricFamily("flashsale_database_up", "1 if the database answered this scrape.")
        up.add_metric([], rows is not None)
        yield up
        if rows is None:
            return
        took = GaugeMetricFamily("flashsale_database_read_seconds", "To connect and to read what follows.")
        took.add_metric([], self._seconds)
        yield took
        units = GaugeMetricFamily(
            "flashsale_stock_units",
            "Units of a product: available, held, awaiting or paid.",
            labels=("product_id", "state"),
        )
        total = GaugeMetricFamily(
            "flashsale_stock_total_units", "All units of a product.", labels=("product_id",)
        )
        of_all = {name: make() for name, make in _OF_ALL.items()}
        for figure, product_id, value in rows:
            if figure in of_all:
                of_all[figure].add_metric([], value)
            elif figure in _STATES:
                units.add_metric([str(product_id), figure], value)
            elif figure == "total_stock":
                total.add_metric([str(product_id)], value)
        yield from (units, total, *of_all.values())
