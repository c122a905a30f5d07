"""What a function's joiner and lanes tell of their work, and where it goes: metrics, log and traces."""

import asyncio
from collections.abc import Sequence
from contextvars import ContextVar
from time import perf_counter
from types import TracebackType
from typing import Any, Protocol

from api.telemetry import metrics

REQUEST: ContextVar[Any] = ContextVar("request", default=None)
"""the `context` (Falcon) of the request that a task answers: what is noted there shows in log and traces"""


class Asked(Protocol):
    """A request on its way through a joiner."""

    arrived: float
    request: Any


class Span(Protocol):
    def end(self, error: BaseException | None) -> None: ...


class Tracer(Protocol):
    """Where spans of calls come from (api/telemetry/tracing.py)."""

    def call(self, function: str, way: str, batch: Sequence[Asked]) -> Span | None: ...


class Observer:
    """One function's.

    :param function: its name
    """

    def __init__(self, function: str = "", tracer: Tracer | None = None) -> None:
        self._function = function
        self._tracer = tracer
        metrics.sent_again.of[(function,)] += 0  # a rate is only told of what was there before it rose
        metrics.reads_shared.of[(function,)] += 0

    def way(self, name: str) -> "WayObserver":
        return WayObserver(self._function, name, self._tracer)

    def sent_again(self, asked: Asked) -> None:
        """The request goes again: a row it needs was locked, or its call failed."""
        metrics.sent_again.of[(self._function,)] += 1
        if asked.request is not None:
            if not hasattr(asked.request, "sent_again"):
                asked.request.sent_again = 0
                asked.request.contended_at = perf_counter()
            asked.request.sent_again += 1


class WayObserver:
    """One way's of a function, and its lane's."""

    def __init__(self, function: str, way: str, tracer: Tracer | None) -> None:
        self.fields = {"function": function, "way": way}
        """for the log"""
        self._labels = (function, way)
        self._tracer = tracer
        self._queue = metrics.queue.labels(*self._labels)
        self._connections = metrics.lane_connections.labels(*self._labels)
        for outcome in ("connected", "failed"):
            metrics.lane_connects.of[function, way, outcome] += 0

    def queued(self, waiting: int) -> None:
        """So many wait at this moment."""
        self._queue.set(waiting)

    def calling(self, batch: Sequence[Asked], sent: int) -> "_Call":
        """To be entered for as long as a call takes.

        :param sent: rows asked for: equal reads share one
        """
        return _Call(self._labels, batch, sent, self._tracer)

    def connected(self) -> None:
        metrics.lane_connects.of[(*self._labels, "connected")] += 1
        self._connections.inc()

    def not_connected(self) -> None:
        metrics.lane_connects.of[(*self._labels, "failed")] += 1

    def disconnected(self) -> None:
        self._connections.dec()


class _Call:
    """A call under way, as a context manager."""

    __slots__ = ("_batch", "_began", "_labels", "_sent", "_span", "_tracer", "_waited")

    def __init__(
        self, labels: tuple[str, str], batch: Sequence[Asked], sent: int, tracer: Tracer | None
    ) -> None:
        self._labels = labels
        self._batch = batch
        self._sent = sent
        self._tracer = tracer
        self._span: Span | None = None

    def __enter__(self) -> None:
        self._began = perf_counter()
        self._waited = asyncio.get_running_loop().time() - self._batch[0].arrived
        if self._tracer is not None:
            self._span = self._tracer.call(*self._labels, self._batch)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        labels = self._labels
        metrics.call_requests.observe(labels, len(self._batch))
        metrics.call_duration.observe(labels, perf_counter() - self._began)
        metrics.call_wait.observe(labels, self._waited)
        if shared := len(self._batch) - self._sent:
            metrics.reads_shared.of[labels[:1]] += shared
        if error is not None:
            metrics.calls_failed.of[(*labels, getattr(error, "reason", "unforeseen"))] += 1
        if self._span is not None:
            self._span.end(error)
