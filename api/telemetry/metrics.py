"""What this process counts, and how its siblings' counts are added to its own.

prometheus-client takes 4 µs to count a request and its time, and 7 where several workers share files: a
twentieth of what the whole request costs. So counts are kept in plain numbers, for a fifth of that, and
handed over to it once a second, before each scrape and at the end (`hand_over`). What a scrape tells of the
worker that answers it is of this instant; what it tells of the others is at most a second old.
"""

import os
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import Protocol

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric
from prometheus_client.multiprocess import MultiProcessCollector

Labels = tuple[str, ...]

_registry = CollectorRegistry()
disable_created_metrics()  # a second series for each, that nobody draws


class Counts:
    """A counter: `counts.of[labels] += 1`."""

    def __init__(self, name: str, documentation: str, *labels: str) -> None:
        self.of: defaultdict[Labels, float] = defaultdict(int)
        self._metric = Counter(name, documentation, labels, registry=_registry)
        self._handed_over: defaultdict[Labels, float] = defaultdict(int)
        _counted.append(self)

    @property
    def total(self) -> float:
        return sum(self.of.values())

    def hand_over(self) -> None:
        for labels, count in self.of.items():
            child = self._metric.labels(*labels) if labels else self._metric
            child.inc(count - self._handed_over[labels])
            self._handed_over[labels] = count


class _Histogram(Histogram):
    """Takes many observations at once, for which prometheus-client has no public way."""

    def add(self, counts: list[int], total: float) -> None:
        for bucket, count in zip(self._buckets, counts, strict=True):
            if count:
                bucket.inc(count)
        self._sum.inc(total)


class Observations:
    """A histogram.

    :param buckets: upper bounds, ascending
    """

    def __init__(self, name: str, documentation: str, *labels: str, buckets: tuple[float, ...]) -> None:
        self._buckets = buckets
        self._metric = _Histogram(name, documentation, labels, buckets=buckets, registry=_registry)
        self._new: dict[Labels, tuple[list[int], list[float]]] = {}
        _counted.append(self)

    def observe(self, labels: Labels, value: float) -> None:
        new = self._new.get(labels)
        if new is None:
            new = self._new[labels] = ([0] * (len(self._buckets) + 1), [0.0])
        new[0][bisect_left(self._buckets, value)] += 1
        new[1][0] += value

    def hand_over(self) -> None:
        for labels, (counts, (total,)) in self._new.items():
            self.add(labels, counts, total)
        self._new.clear()

    def add(self, labels: Labels, counts: list[int], total: float) -> None:
        (self._metric.labels(*labels) if labels else self._metric).add(counts, total)


class _Requests:
    """Answered requests: how many by method, route and status line, and how long by method and route."""

    def __init__(self) -> None:
        self._answers: dict[tuple[str, str | None, str], list[float]] = {}
        self.failed = 0.0
        self.count = 0.0
        _counted.append(self)

    def observe(self, method: str, route: str | None, status: str, seconds: float) -> None:
        key = (method, route, status)
        answers = self._answers.get(key)
        if answers is None:
            answers = self._answers[key] = [0] * (len(SECONDS) + 1) + [0.0]
        answers[bisect_left(SECONDS, seconds)] += 1
        answers[-1] += seconds

    def hand_over(self) -> None:
        for (method, route, status), answers in self._answers.items():
            *counts, total = answers
            count = sum(counts)
            self.count += count
            self.failed += count if status.startswith("5") else 0
            requests.of[method, route or "", status[:3]] += count
            request_duration.add((method, route or ""), counts, total)
        self._answers.clear()


_counted: list[Counts | Observations | _Requests] = []

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0)
SIZES = (1, 2, 5, 10, 20, 50, 100, 200, 500)

answered = _Requests()
requests = Counts("flashsale_http_requests", "Requests answered.", "method", "route", "status")
request_duration = Observations(
    "flashsale_http_request_duration_seconds",
    "From a request's head to its answer.",
    "method",
    "route",
    buckets=SECONDS,
)
refusals = Counts("flashsale_refusals", "Answers with problem details, by their code.", "code")
replays = Counts("flashsale_replays", "Answers whose work an earlier request had done.", "route")
live_listeners = Gauge(
    "flashsale_live_listeners", "Open live streams.", registry=_registry, multiprocess_mode="livesum"
)

call_requests = Observations(
    "flashsale_call_requests",
    "Requests joined into one call of a function.",
    "function",
    "way",
    buckets=SIZES,
)
call_duration = Observations(
    "flashsale_call_duration_seconds",
    "From sending a call to its rows.",
    "function",
    "way",
    buckets=SECONDS,
)
call_wait = Observations(
    "flashsale_call_wait_seconds",
    "How long the first of a call's requests had waited for it.",
    "function",
    "way",
    buckets=SECONDS,
)
calls_failed = Counts(
    "flashsale_calls_failed",
    "Calls without rows: not_sent, outcome_unknown, or the SQLSTATE with which they were rolled back.",
    "function",
    "way",
    "reason",
)
sent_again = Counts(
    "flashsale_requests_sent_again",
    "Requests that met a locked row or whose call failed, and went again.",
    "function",
)
reads_shared = Counts("flashsale_reads_shared", "Reads answered by the row of an equal one.", "function")
queue = Gauge(
    "flashsale_queue_requests",
    "Requests waiting for a call.",
    ["function", "way"],
    registry=_registry,
    multiprocess_mode="livesum",
)

lane_connections = Gauge(
    "flashsale_lane_connections",
    "Connections that carry calls.",
    ["function", "way"],
    registry=_registry,
    multiprocess_mode="livesum",
)
lane_connects = Counts(
    "flashsale_lane_connects",
    "Attempts to connect: connected or failed.",
    "function",
    "way",
    "outcome",
)
pool_connections = Gauge(
    "flashsale_pool_connections",
    "Connections for what is not joined: idle or used.",
    ["state"],
    registry=_registry,
    multiprocess_mode="livesum",
)
pool_waiting = Gauge(
    "flashsale_pool_waiting",
    "Requests waiting for one of these connections.",
    registry=_registry,
    multiprocess_mode="livesum",
)

workers = Gauge("flashsale_workers", "Worker processes.", registry=_registry, multiprocess_mode="livesum")
worker_start_time = Gauge(
    "flashsale_worker_start_time_seconds",
    "When the youngest worker started, in Unix time.",
    registry=_registry,
    multiprocess_mode="livemax",
)
worker_cpu = Counts("flashsale_worker_cpu_seconds", "Processor time of the workers.")
worker_resident = Gauge(
    "flashsale_worker_resident_bytes",
    "Memory of the workers, what they share counted for each.",
    registry=_registry,
    multiprocess_mode="livesum",
)
event_loop_lag = Observations(
    "flashsale_event_loop_lag_seconds",
    "How late a worker's event loop was for something due, sampled once a second.",
    buckets=SECONDS,
)
log_lines_dropped = Counts(
    "flashsale_log_lines_dropped", "Log lines left out because there were too many of their kind."
)


class Source(Protocol):
    """Whatever else a scrape tells."""

    def collect(self) -> Iterable[Metric]: ...


def hand_over() -> None:
    """Give prometheus-client what was counted since the last time. Only the event loop's thread may."""
    for counted in _counted:
        counted.hand_over()


class _Everything:
    """This process's metrics, or all workers' if they share files, and others'."""

    def __init__(self, others: tuple[Source, ...]) -> None:
        self._others = others

    def collect(self) -> Iterator[Metric]:
        if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
            yield from MultiProcessCollector(None).collect()
        else:
            yield from _registry.collect()
        for other in self._others:
            yield from other.collect()


def exposition(accept: str, *others: Source) -> tuple[bytes, str]:
    """The text of a scrape, and its media type.

    :param accept: the scraper's Accept header
    """
    encode, media_type = choose_encoder(accept)
    return encode(_Everything(others)), media_type
