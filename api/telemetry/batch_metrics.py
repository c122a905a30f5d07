"""Metrics, log fields and traces of a function's batches and connections."""

import asyncio
from collections.abc import Mapping, Sequence
from time import perf_counter
from types import TracebackType
from typing import Any, Protocol

from api.telemetry import metrics


class PendingRequest(Protocol):
    """A request of a batch.

    :param context: Falcon's context of the HTTP request, if there is one
    """

    arrived_at: float
    context: Any


class Span(Protocol):
    def end(self, error: BaseException | None) -> None: ...


class Tracer(Protocol):
    """Starts the spans of calls (api/telemetry/tracing.py)."""

    def start_call(self, function: str, path: str, batch: Sequence[PendingRequest]) -> Span | None: ...


class BatchMetrics:
    """Metrics of one function.

    :param function: its name
    :param more_labels: values of the labels of metrics.label_calls(), by name
    """

    def __init__(
        self,
        function: str = "",
        tracer: Tracer | None = None,
        *,
        more_labels: Mapping[str, str] | None = None,
    ) -> None:
        self._function = function
        self._tracer = tracer
        self._more_labels = more_labels or {}
        self._labels = (*self._more_labels.values(), function)
        metrics.request_retries.by_labels[self._labels] += (
            0  # without a first sample rate() misses the first increase
        )
        metrics.reads_coalesced.by_labels[self._labels] += 0

    def path(self, name: str) -> "PathMetrics":
        return PathMetrics(self._function, name, self._tracer, self._more_labels)

    def retried(self, request: PendingRequest) -> None:
        """Count a retry: a row that the request needs was locked, or its call failed."""
        metrics.request_retries.by_labels[self._labels] += 1
        if request.context is not None:
            if not hasattr(request.context, "retries"):
                request.context.retries = 0
                request.context.contended_at = perf_counter()
            request.context.retries += 1


class PathMetrics:
    """Metrics of one path of a function, and of its connection."""

    def __init__(
        self, function: str, path: str, tracer: Tracer | None, more_labels: Mapping[str, str]
    ) -> None:
        self.log_fields = {**more_labels, "function": function, "path": path}
        self._labels = tuple(self.log_fields.values())
        self._tracer = tracer
        self._queue = metrics.queue.labels(*self._labels)
        self._connections = metrics.db_connections.labels(*self._labels)
        for outcome in ("connected", "failed"):
            metrics.db_connects.by_labels[(*self._labels, outcome)] += 0

    def set_queue_size(self, waiting: int) -> None:
        self._queue.set(waiting)

    def measure_call(self, batch: Sequence[PendingRequest], sent: int) -> "_CallMeasurement":
        """A context manager for the duration of a call.

        :param sent: the number of argument tuples, less than the batch if equal reads share one
        """
        return _CallMeasurement(self._labels, batch, sent, self._tracer)

    def connected(self) -> None:
        metrics.db_connects.by_labels[(*self._labels, "connected")] += 1
        self._connections.inc()

    def connection_failed(self) -> None:
        metrics.db_connects.by_labels[(*self._labels, "failed")] += 1

    def disconnected(self) -> None:
        self._connections.dec()


class _CallMeasurement:
    __slots__ = ("_batch", "_labels", "_sent", "_span", "_started_at", "_tracer", "_waited")

    def __init__(
        self, labels: metrics.Labels, batch: Sequence[PendingRequest], sent: int, tracer: Tracer | None
    ) -> None:
        self._labels = labels
        self._batch = batch
        self._sent = sent
        self._tracer = tracer
        self._span: Span | None = None

    def __enter__(self) -> None:
        self._started_at = perf_counter()
        self._waited = asyncio.get_running_loop().time() - self._batch[0].arrived_at
        if self._tracer is not None:
            *_, function, path = self._labels
            self._span = self._tracer.start_call(function, path, self._batch)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        labels = self._labels
        metrics.batch_size.observe(labels, len(self._batch))
        metrics.call_duration.observe(labels, perf_counter() - self._started_at)
        metrics.queue_wait.observe(labels, self._waited)
        if coalesced := len(self._batch) - self._sent:
            metrics.reads_coalesced.by_labels[labels[:-1]] += coalesced
        if error is not None:
            metrics.calls_failed.by_labels[(*labels, getattr(error, "reason", "unexpected"))] += 1
        if self._span is not None:
            self._span.end(error)
