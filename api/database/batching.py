"""Batches concurrent requests into few calls of a set-based function.

A call is sent whenever its connection is free, with all requests that have arrived since the last one. Under
load many requests share one lock and one commit; a single request is sent at once, alone. The batcher does
not interpret requests: it takes argument tuples and returns rows.

A batcher has two paths to its function, each with a queue and a connection:

    fast    every request starts here. Its lock timeout is short, so that a locked row delays requests
            for other rows only briefly.
    slow    requests that met a locked row, or whose batch was rolled back, are retried here until their
            queue timeout.

A read-only function has one path, `read`. A batch that was rolled back is split and retried, so that an
invalid request ends up alone in its batch and fails alone; a batch that met only a locked row stays together.
A batch for which the server has no memory or lock slots left is split, too, and so are the ones after it.
A write whose outcome is unknown is never retried; a read is.
"""

import asyncio
import logging
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from operator import attrgetter
from typing import Any, Generic

from api.context import REQUEST
from api.database.errors import Busy, OutcomeUnknown, Overloaded, RolledBack, Unavailable
from api.database.functions import Row
from api.telemetry.batch_metrics import BatchMetrics, PathMetrics

log = logging.getLogger("flashsale.api")

Arguments = tuple[Any, ...]
Call = Callable[[Sequence[Arguments]], Awaitable[Sequence[Row]]]
"""Sends argument tuples and returns their rows, in any order; a row's request_no is the tuple's index.
Raises Unavailable, RolledBack or OutcomeUnknown; anything else is a defect."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of a batcher. Times are in seconds.

    Between `queue_timeout` and `response_timeout` there must be enough time for the last call: the
    connection's statement timeout and a commit. Otherwise requests fail as OutcomeUnknown although their
    outcome would be known soon after.
    """

    max_batch_size: int = 500
    """requests in one call (the SQL functions accept up to 1,000)"""
    max_queue_size: int = 2000
    """requests in the queue of the fast path; further ones are rejected as Overloaded"""
    max_slow_queue_size: int = 500
    """requests in the queue of the slow path; further ones fail as Busy. Together the slow paths must leave
    room below MAX_CONCURRENT_REQUESTS (api/server/admission.py) for requests whose rows are not locked"""
    queue_timeout: float = 0.8
    """from a request's arrival until the last moment at which it is sent"""
    response_timeout: float = 1.9
    """from a request's arrival until it fails if there is still no row"""
    contention_ttl: float = 2.0
    """how long a key counts as contended after its last request on the slow path has failed"""
    retry_delay: float = 0.02
    """on the slow or read path, after a call that made no progress"""
    timer_interval: float = 0.05
    """between two checks of the timeouts"""


LOCK_NOT_AVAILABLE = "55P03"
"""in a row: another session has locked what the request needs; nothing was done for it"""

_TRANSIENT = frozenset({LOCK_NOT_AVAILABLE, "40001", "40P01", "57014", "0A000", "26000"})
"""transient SQLSTATEs: lock, serialization failure, deadlock, timeout, plan invalidated by reloaded sql/"""

_OUT_OF_MEMORY = "53200"
"""no memory left in the server, as for the locks of a large batch: each key and each new order takes one"""

_SERVER_ERROR_CLASSES = frozenset({"08", "25", "28", "3D", "3F", "42", "53", "57", "58"})
"""SQLSTATE classes of errors of the server or its schema, which splitting the batch cannot help"""


class _PendingRequest(Generic[Row]):
    """A request that has no row yet."""

    __slots__ = ("arguments", "arrived_at", "context", "future", "is_contended", "max_batch_size", "retries")

    def __init__(
        self, arguments: Arguments, future: "asyncio.Future[Row]", arrived_at: float, max_batch_size: int
    ) -> None:
        self.arguments = arguments
        self.future = future
        self.arrived_at = arrived_at
        self.max_batch_size = max_batch_size
        self.retries = 0  # of a read whose outcome was unknown
        self.is_contended = False  # counted in _contended_keys
        self.context = REQUEST.get()

    def fail(self, error: Exception) -> None:
        if not self.future.done():
            self.future.set_exception(error)


class Batcher(Generic[Row]):
    """Serves concurrent requests for one set-based function.

    :param call: sends a batch on the connection of the fast (or read) path
    :param slow_call: sends a batch on the connection of the slow path; None for functions that take no locks
    :param read_only: equal arguments in one batch share a row, and a call whose outcome is unknown is retried
    :param key_index: index of the argument that identifies the row to lock. While requests with one key are
        on the slow path and none has been served, and for `contention_ttl` after, further ones go to the
        slow path directly, so that the fast path does not wait for the lock again.
    """

    def __init__(
        self,
        call: Call[Row],
        slow_call: Call[Row] | None = None,
        *,
        limits: Limits | None = None,
        read_only: bool = False,
        key_index: int | None = None,
        metrics: BatchMetrics | None = None,
    ) -> None:
        self._limits = limits = limits or Limits()
        self._metrics = metrics = metrics or BatchMetrics()
        self._key_index = key_index
        self._contended_keys: Counter[Any] = Counter()
        self._slow: _Path[Row] | None = None
        if slow_call:
            slow_limits = replace(limits, max_queue_size=limits.max_slow_queue_size)
            path = metrics.path("slow")
            self._slow = _Path(slow_call, slow_limits, read_only, Busy, self._retry, path, retries_here=True)
        path = metrics.path("read" if read_only else "fast")
        is_only = self._slow is None
        self._main = _Path(call, limits, read_only, Overloaded, self._retry, path, retries_here=is_only)

    def submit(self, *arguments: Any) -> Awaitable[Row]:
        """Submit one request; the future returns its row.

        A read is only served by a call that starts after this moment.

        :raises Overloaded: at once, if the queue is full
        :returns: a future that returns the row, or raises Overloaded, Busy, Unavailable, OutcomeUnknown, or
            RolledBack if this request alone caused the rollback
        """
        loop = asyncio.get_running_loop()
        request = _PendingRequest(arguments, loop.create_future(), loop.time(), self._limits.max_batch_size)
        if (
            self._contended_keys
            and self._key_index is not None
            and arguments[self._key_index] in self._contended_keys
        ):
            self._enqueue_slow(request)
        elif not self._main.enqueue(request):
            raise Overloaded(f"{self._limits.max_queue_size} requests are waiting")
        return request.future

    def _retry(self, request: _PendingRequest[Row]) -> None:
        self._metrics.retried(request)
        if self._slow is None:
            self._main.enqueue(request, at_head=True)
        else:
            self._enqueue_slow(request)

    def _enqueue_slow(self, request: _PendingRequest[Row]) -> None:
        if self._slow is None or not self._slow.enqueue(request):
            request.fail(Busy("too many requests are waiting for locked rows"))
        elif self._key_index is not None and not request.is_contended:
            request.is_contended = True
            key = request.arguments[self._key_index]
            self._contended_keys[key] += 1
            request.future.add_done_callback(lambda future: self._release_key(key, future))

    def _release_key(self, key: Any, future: "asyncio.Future[Row]") -> None:
        is_served = not future.cancelled() and future.exception() is None
        if is_served:
            self._contended_keys.pop(key, None)
        elif key in self._contended_keys:
            self._contended_keys[key] -= 1
            # The client is likely to retry.
            future.get_loop().call_later(self._limits.contention_ttl, self._forget_key, key)

    def _forget_key(self, key: Any) -> None:
        if self._contended_keys.get(key, 1) <= 0:
            del self._contended_keys[key]


class _Path(Generic[Row]):
    """A queue, and the task that sends it in batches while it is not empty.

    :param timeout_error: of a request that reaches its queue timeout
    :param retries_here: `retry` puts requests back into this path, not another
    """

    def __init__(
        self,
        call: Call[Row],
        limits: Limits,
        read_only: bool,
        timeout_error: type[Exception],
        retry: Callable[[_PendingRequest[Row]], None],
        metrics: PathMetrics,
        *,
        retries_here: bool,
    ) -> None:
        self._call = call
        self._limits = limits
        self._read_only = read_only
        self._timeout_error = timeout_error
        self._retry = retry
        self._metrics = metrics
        self._retries_here = retries_here
        self._max_batch_size = limits.max_batch_size
        self._queue: deque[_PendingRequest[Row]] = deque()
        self._in_flight: Sequence[_PendingRequest[Row]] = ()
        self._sent_at = 0.0
        self._task: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None

    def enqueue(self, request: _PendingRequest[Row], *, at_head: bool = False) -> bool:
        """Append a request; False if the queue is full. A retry goes `at_head`, and is always accepted."""
        if len(self._queue) >= self._limits.max_queue_size and not at_head:  # guard: queue-limit
            return False
        if at_head:
            self._queue.appendleft(request)
        else:
            self._queue.append(request)
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._run())
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(
                self._limits.timer_interval, self._expire_timeouts
            )
        return True

    async def _run(self) -> None:
        try:
            while self._queue:
                batch = self._next_batch()
                if batch and not await self._send(batch) and self._retries_here:
                    # Retries are in the queue already: without a delay this would be a busy loop.
                    await asyncio.sleep(self._limits.retry_delay)
        finally:
            self._task = None

    def _next_batch(self) -> list[_PendingRequest[Row]]:
        """The oldest requests, no more than the max_batch_size of each of them, in order of arrival."""
        size = self._max_batch_size
        batch: list[_PendingRequest[Row]] = []
        queue = self._queue
        oldest_arrival = asyncio.get_running_loop().time() - self._limits.queue_timeout
        while queue and len(batch) < min(size, queue[0].max_batch_size):
            request = queue.popleft()
            if request.future.done():
                continue  # cancelled, or timed out
            if request.arrived_at <= oldest_arrival:
                # Back from a call that ended after the last check of the timeouts.
                request.fail(self._timeout_error("queue timeout"))
                continue
            if request.max_batch_size < size:
                size = request.max_batch_size
            batch.append(request)
        if self._retries_here:
            batch.sort(key=_arrived_at)  # a retry is queued behind later requests, but served before them
        return batch

    async def _send(self, batch: list[_PendingRequest[Row]]) -> bool:
        """Resolve a batch by one call; False if sending again at once would repeat the failure."""
        self._in_flight = batch
        self._sent_at = asyncio.get_running_loop().time()
        arguments: Sequence[Arguments] = [request.arguments for request in batch]
        if self._read_only:  # guard: writes-not-merged
            arguments = list(dict.fromkeys(arguments))
        try:
            with self._metrics.measure_call(batch, len(arguments)):
                rows = await self._call(arguments)
            if self._max_batch_size < self._limits.max_batch_size:
                growth = max(1, self._max_batch_size // 8)
                self._max_batch_size = min(self._limits.max_batch_size, self._max_batch_size + growth)
            return self._resolve(batch, arguments, rows)
        except Unavailable as error:
            for request in batch:
                request.fail(error)
        except RolledBack as error:
            return self._split_and_retry(batch, error)
        except OutcomeUnknown as error:
            self._fail_unknown(batch, error)
        except Exception as error:
            log.exception(
                "a call of %d requests failed unexpectedly", len(batch), extra=self._metrics.log_fields
            )
            self._fail_unknown(batch, OutcomeUnknown(str(error)), can_retry=False)
        finally:
            self._in_flight = ()
        return True

    def _resolve(
        self, batch: list[_PendingRequest[Row]], arguments: Sequence[Arguments], rows: Sequence[Row]
    ) -> bool:
        found: list[Row | None]
        if self._read_only:
            row_by_arguments = {arguments[row.request_no]: row for row in rows}
            found = [row_by_arguments.get(request.arguments) for request in batch]
        else:
            found = [None] * len(batch)
            for returned in rows:
                found[returned.request_no] = returned  # guard: row-of-request
        progress = False
        for request, row in zip(batch, found, strict=True):
            if row is None:
                log.error(
                    "a call of %d requests returned no row for one of them",
                    len(batch),
                    extra=self._metrics.log_fields,
                )
                request.fail(OutcomeUnknown("no row was returned"))
            elif row.sqlstate == LOCK_NOT_AVAILABLE:
                if not request.future.done():
                    self._retry(request)
            else:
                progress = True
                if not request.future.done():
                    request.future.set_result(row)
        return progress

    def _split_and_retry(self, batch: list[_PendingRequest[Row]], error: RolledBack) -> bool:
        """The batch was rolled back: retry its requests in smaller batches, if that can help."""
        is_transient = error.sqlstate in _TRANSIENT
        fields = self._metrics.log_fields
        if error.sqlstate == _OUT_OF_MEMORY and len(batch) > 1:  # guard: out-of-locks-split
            self._max_batch_size = len(batch) // 2
            log.warning("a call of %d requests is split: %s", len(batch), error, extra=fields)
            for request in reversed(batch):
                if not request.future.done():
                    self.enqueue(request, at_head=True)
            return True
        if not is_transient and (len(batch) == 1 or error.sqlstate[:2] in _SERVER_ERROR_CLASSES):
            log.error("a call of %d requests was rolled back: %s", len(batch), error, extra=fields)
            failure = error if len(batch) == 1 else Unavailable(str(error))
            for request in batch:
                request.fail(failure)
            return True
        message = "a call of %d requests was rolled back and is retried: %s"
        log.info(message, len(batch), error, extra=fields)
        for request in batch:
            # Split, requests for a locked row would each wait for its lock, one after the other; together
            # they wait once, and requests for other rows are served past them.
            if error.sqlstate != LOCK_NOT_AVAILABLE:
                request.max_batch_size = max(1, len(batch) // 4)
            if not request.future.done():
                self._retry(request)
        return not is_transient

    def _fail_unknown(
        self, batch: Sequence[_PendingRequest[Row]], error: OutcomeUnknown, *, can_retry: bool = True
    ) -> None:
        """The call's outcome is unknown: fail writes, retry reads."""
        for request in reversed(batch):
            if not self._read_only:  # guard: write-not-retried
                request.fail(error)
            elif not can_retry or request.retries >= 2:
                request.fail(Unavailable(str(error)))
            elif not request.future.done():
                request.retries += 1
                self._retry(request)

    def _expire_timeouts(self) -> None:
        """Fail the requests that reached a timeout. A call in flight goes on without them."""
        loop = asyncio.get_running_loop()
        now = loop.time()
        for request in self._in_flight:
            if now - request.arrived_at >= self._limits.response_timeout:  # guard: response-timeout
                request.fail((Unavailable if self._read_only else OutcomeUnknown)("response timeout"))
        is_stalled = self._in_flight and now - self._sent_at >= self._limits.queue_timeout / 2
        has_expired = False
        for request in self._queue:
            if now - request.arrived_at >= self._limits.queue_timeout:
                request.fail((Unavailable if is_stalled else self._timeout_error)("queue timeout"))
                has_expired = True
        if has_expired:
            self._queue = deque(request for request in self._queue if not request.future.done())
        self._metrics.set_queue_size(len(self._queue))
        is_active = self._in_flight or self._queue
        self._timer = (
            loop.call_later(self._limits.timer_interval, self._expire_timeouts) if is_active else None
        )


_arrived_at = attrgetter("arrived_at")
