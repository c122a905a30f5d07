"""Metrics of the sale that SQL provides: get_sale_metrics(), read at a scrape, at most once a second."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric

CACHE_SECONDS = 1.0
"""for which the metrics, or their absence, are reused"""

_STATES = ("available", "held", "awaiting", "paid")

_BY_PRODUCT: dict[str, tuple[str, str]] = {
    "total_stock": ("flashsale_stock_total_units", "All units of a product."),
    "on_sale": ("flashsale_sale_open", "1 if holds of a product are placed: begun, not ended, not paused."),
    "starts_at": ("flashsale_sale_starts_at_seconds", "When a product's sale starts, in Unix time."),
    "ends_at": ("flashsale_sale_ends_at_seconds", "When a product's sale ends, in Unix time."),
}
"""By their name in SQL: name and documentation of the gauges of a product."""

_UNLABELLED: dict[str, Callable[[], GaugeMetricFamily | CounterMetricFamily]] = {
    "refunds_due": lambda: GaugeMetricFamily(
        "flashsale_refunds_due", "Captured payments for which money is owed back, counted up to 10,000."
    ),
    "inbox": lambda: GaugeMetricFamily(
        "flashsale_inbox_webhooks", "Stored webhooks whose order does not exist yet."
    ),
    "inbox_limit": lambda: GaugeMetricFamily("flashsale_inbox_limit", "Maximum number of stored webhooks."),
    "rejected_webhooks": lambda: GaugeMetricFamily(
        "flashsale_rejected_webhooks", "Refused webhooks that may stand for captured money."
    ),
    "rejected_webhooks_dropped": lambda: CounterMetricFamily(
        "flashsale_rejected_webhooks_dropped", "Refused webhooks that were not kept, for want of room."
    ),
    "sweep_lag": lambda: GaugeMetricFamily(
        "flashsale_sweep_lag_seconds", "Age of the oldest lapsed hold or order that has not been swept."
    ),
    "scheduler_alive": lambda: GaugeMetricFamily(
        "flashsale_scheduler_alive", "1 if pg_cron runs the sweep on schedule, and the last run succeeded."
    ),
    "scheduler_lag": lambda: GaugeMetricFamily(
        "flashsale_scheduler_lag_seconds", "Time since the sweep last ran, or was scheduled."
    ),
    "ledger_events": lambda: CounterMetricFamily("flashsale_ledger_events", "Events in the ledger."),
}
"""By their name in SQL: metrics without labels."""


class SaleMetrics:
    """The newest metrics, as a collector (api/telemetry/metrics.py).

    :param get_sale_metrics: returns rows (metric, product_id, value); None if the database does not respond
    """

    def __init__(
        self, get_sale_metrics: Callable[[], Awaitable[Sequence[tuple[str, int | None, float]] | None]]
    ) -> None:
        self._get_sale_metrics = get_sale_metrics
        self._rows: Sequence[tuple[str, int | None, float]] | None = None
        self._seconds = 0.0
        self._read_at = float("-inf")
        self._lock = asyncio.Lock()

    async def read(self) -> None:
        """Read the metrics, unless that was just done."""
        async with self._lock:
            started_at = time.monotonic()
            if started_at - self._read_at < CACHE_SECONDS:
                return
            self._rows = await self._get_sale_metrics()
            self._read_at = time.monotonic()
            self._seconds = self._read_at - started_at

    def collect(self) -> Iterator[Metric]:
        rows = self._rows
        up = GaugeMetricFamily("flashsale_database_up", "1 if the database responded to this scrape.")
        up.add_metric([], rows is not None)
        yield up
        if rows is None:
            return
        duration = GaugeMetricFamily(
            "flashsale_database_read_seconds", "Time to connect and to read the following metrics."
        )
        duration.add_metric([], self._seconds)
        yield duration
        units = GaugeMetricFamily(
            "flashsale_stock_units",
            "Units of a product: available, held, awaiting or paid.",
            labels=("product_id", "state"),
        )
        by_product = {
            metric: GaugeMetricFamily(name, documentation, labels=("product_id",))
            for metric, (name, documentation) in _BY_PRODUCT.items()
        }
        unlabelled = {name: make() for name, make in _UNLABELLED.items()}
        for metric, product_id, value in rows:
            if metric in unlabelled:
                unlabelled[metric].add_metric([], value)
            elif metric in _STATES:
                units.add_metric([str(product_id), metric], value)
            elif metric in by_product:
                by_product[metric].add_metric([str(product_id)], value)
        yield from (units, *by_product.values(), *unlabelled.values())
