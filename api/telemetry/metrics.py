"""The metrics of this process, and their exposition with those of the other workers.

prometheus-client takes 4 µs to count a request and its duration, 7 with several workers: a twentieth of the
cost of a request. So counts are buffered in plain numbers, for a fifth of that, and flushed to it once a
second, before each scrape and on shutdown. A scrape shows the worker that serves it as of now, and the others
as of at most a second ago.
"""

import os
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import Literal, Protocol

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric
from prometheus_client.multiprocess import MultiProcessCollector

Labels = tuple[str, ...]

_registry = CollectorRegistry()
disable_created_metrics()  # type: ignore[no-untyped-call] # a second series for each counter


def _gauge(
    name: str, documentation: str, *labels: str, mode: Literal["livesum", "livemax"] = "livesum"
) -> Gauge:
    return Gauge(name, documentation, labels, registry=_registry, multiprocess_mode=mode)


class BufferedCounter:
    """A counter: `counter.by_labels[labels] += 1`."""

    def __init__(self, name: str, documentation: str, *labels: str) -> None:
        self.by_labels: defaultdict[Labels, float] = defaultdict(int)
        self.metric = Counter(name, documentation, labels, registry=_registry)
        self._flushed: defaultdict[Labels, float] = defaultdict(int)
        _buffered.append(self)

    @property
    def total(self) -> float:
        return sum(self.by_labels.values())

    def flush(self) -> None:
        for labels, count in self.by_labels.items():
            child = self.metric.labels(*labels) if labels else self.metric
            child.inc(count - self._flushed[labels])
            self._flushed[labels] = count


class _Histogram(Histogram):
    """Adds many observations at once, which prometheus-client has no public method for."""

    def add(self, counts: list[int], total: float) -> None:
        for bucket, count in zip(self._buckets, counts, strict=True):
            if count:
                bucket.inc(count)
        self._sum.inc(total)


class BufferedHistogram:
    """A histogram.

    :param buckets: upper bounds, ascending
    """

    def __init__(self, name: str, documentation: str, *labels: str, buckets: tuple[float, ...]) -> None:
        self._buckets = buckets
        self.metric = _Histogram(name, documentation, labels, buckets=buckets, registry=_registry)
        self._new: dict[Labels, tuple[list[int], list[float]]] = {}
        _buffered.append(self)

    def observe(self, labels: Labels, value: float) -> None:
        new = self._new.get(labels)
        if new is None:
            new = self._new[labels] = ([0] * (len(self._buckets) + 1), [0.0])
        new[0][bisect_left(self._buckets, value)] += 1
        new[1][0] += value

    def flush(self) -> None:
        for labels, (counts, (total,)) in self._new.items():
            self.add(labels, counts, total)
        self._new.clear()

    def add(self, labels: Labels, counts: list[int], total: float) -> None:
        (self.metric.labels(*labels) if labels else self.metric).add(counts, total)


class _Responses:
    """Responses: their number by method, route and status line, and their duration by method and route."""

    def __init__(self) -> None:
        self._buffer: dict[tuple[str, str | None, str], tuple[list[int], list[float]]] = {}
        self.failed = 0.0
        self.count = 0.0
        _buffered.append(self)

    def observe(self, method: str, route: str | None, status: str, seconds: float) -> None:
        key = (method, route, status)
        buckets = self._buffer.get(key)
        if buckets is None:
            buckets = self._buffer[key] = ([0] * (len(SECONDS) + 1), [0.0])
        buckets[0][bisect_left(SECONDS, seconds)] += 1
        buckets[1][0] += seconds

    def flush(self) -> None:
        for (method, route, status), (counts, (total,)) in self._buffer.items():
            count = sum(counts)
            self.count += count
            self.failed += count if status.startswith("5") else 0
            requests.by_labels[method, route or "", status[:3]] += count
            request_duration.add((method, route or ""), counts, total)
        self._buffer.clear()


_buffered: list[BufferedCounter | BufferedHistogram | _Responses] = []

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0)
SIZES = (1, 2, 5, 10, 20, 50, 100, 200, 500)

responses = _Responses()
requests = BufferedCounter("flashsale_http_requests", "Responses sent.", "method", "route", "status")
request_duration = BufferedHistogram(
    "flashsale_http_request_duration_seconds",
    "From the end of a request's head to its response.",
    "method",
    "route",
    buckets=SECONDS,
)
problems = BufferedCounter("flashsale_problems", "Responses with problem details.", "code")
webhooks_refused = BufferedCounter(
    "flashsale_webhooks_refused", "Webhooks answered 4xx, also under a path that does not exist.", "code"
)
replays = BufferedCounter("flashsale_replays", "Responses with the result of an earlier request.", "route")
provider_events_ignored = BufferedCounter(
    "flashsale_provider_events_ignored",
    "Statements of providers' webhooks that concern no order of this shop.",
    "provider",
    "reason",
)
webhooks = BufferedCounter("flashsale_webhooks", "Recorded webhooks, without replays.", "status", "result")
stock_feed_subscribers = _gauge("flashsale_stock_feed_subscribers", "Subscribers of the stock feed.")

batch_size = BufferedHistogram(
    "flashsale_batch_size", "Requests in one call of a function.", "function", "path", buckets=SIZES
)
call_duration = BufferedHistogram(
    "flashsale_call_duration_seconds", "From sending a call to its rows.", "function", "path", buckets=SECONDS
)
queue_wait = BufferedHistogram(
    "flashsale_queue_wait_seconds",
    "Time in the queue of the oldest request of a batch.",
    "function",
    "path",
    buckets=SECONDS,
)
calls_failed = BufferedCounter(
    "flashsale_calls_failed",
    "Calls that returned no rows: unavailable, outcome_unknown, or the SQLSTATE of the rollback.",
    "function",
    "path",
    "reason",
)
request_retries = BufferedCounter(
    "flashsale_request_retries", "Retries of requests that met a locked row or whose call failed.", "function"
)
reads_coalesced = BufferedCounter(
    "flashsale_reads_coalesced", "Reads served by the row of an equal one in the same call.", "function"
)
queue = _gauge("flashsale_queue_requests", "Requests in the queue.", "function", "path")

db_connections = _gauge("flashsale_db_connections", "Open connections for batched calls.", "function", "path")
db_connects = BufferedCounter("flashsale_db_connects", "Connection attempts.", "function", "path", "outcome")
pool_connections = _gauge(
    "flashsale_pool_connections", "Connections of the pool for calls that are not batched.", "state"
)
pool_waiting = _gauge("flashsale_pool_waiting", "Requests waiting for a connection of the pool.")

workers = _gauge("flashsale_workers", "Worker processes.")
worker_start_time = _gauge(
    "flashsale_worker_start_time_seconds", "Start time of the youngest worker, in Unix time.", mode="livemax"
)
worker_cpu = BufferedCounter("flashsale_worker_cpu_seconds", "Processor time of the workers.")
worker_resident = _gauge(
    "flashsale_worker_resident_bytes", "Resident memory of the workers; shared pages are counted for each."
)
event_loop_lag = BufferedHistogram(
    "flashsale_event_loop_lag_seconds",
    "Delay of a timer in a worker's event loop, sampled once a second.",
    buckets=SECONDS,
)
log_lines_dropped = BufferedCounter("flashsale_log_lines_dropped", "Log lines dropped by the rate limit.")


def label_calls(name: str) -> None:
    """Put one more label before those of the metrics of calls and their connections; before any is counted.

    prometheus-client has no public method for it.
    """
    for metric in (
        batch_size.metric, call_duration.metric, queue_wait.metric, calls_failed.metric,
        request_retries.metric, reads_coalesced.metric, queue, db_connections, db_connects.metric,
    ):  # fmt: skip
        metric._labelnames = (name, *metric._labelnames)


class Collector(Protocol):
    """A source of further metrics."""

    def collect(self) -> Iterable[Metric]: ...


def flush() -> None:
    """Pass buffered counts to prometheus-client. Only for the event loop's thread."""
    for metric in _buffered:
        metric.flush()


class _AllMetrics:
    """Metrics of this process, or of all workers if they share files, and of further collectors."""

    def __init__(self, others: tuple[Collector, ...]) -> None:
        self._others = others

    def collect(self) -> Iterator[Metric]:
        if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
            yield from MultiProcessCollector(None).collect()  # type: ignore[no-untyped-call] # the library's
        else:
            yield from _registry.collect()
        for other in self._others:
            yield from other.collect()


def exposition(accept: str, *others: Collector) -> tuple[bytes, str]:
    """The text of a scrape, and its media type.

    :param accept: the scraper's Accept header
    """
    encode, media_type = choose_encoder(accept)
    return encode(_AllMetrics(others)), media_type
