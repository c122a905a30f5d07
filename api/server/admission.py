"""Admission control: at most MAX_CONCURRENT_REQUESTS are processed at once.

To reject a request costs the event loop as much as to serve it once the request has been parsed: without a
limit, an overloaded server would only reject requests that have timed out. Beyond the limit a connection's
bytes are kept unparsed and nothing more is read from it, so that TCP holds its client back. After
MAX_WAIT_SECONDS the request is rejected with 503.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from contextvars import copy_context
from typing import Protocol

MAX_CONCURRENT_REQUESTS = 2000
"""requests being processed, those of the stock feed included; a fifth of a second's work"""
MAX_WAIT_SECONDS = 0.5
"""for admission, until the request is rejected"""
CHECK_INTERVAL_SECONDS = 0.05
"""seconds between two checks of the waiting connections"""


class WaitingConnection(Protocol):
    """A connection whose next request has begun to arrive."""

    def resume(self) -> None:
        """Process the request."""

    def reject(self) -> None:
        """Reject the request without parsing it."""


class AdmissionController:
    """Admits requests in order of arrival.

    :param in_progress: returns the number of requests being processed
    """

    def __init__(self, in_progress: Callable[[], int], loop: asyncio.AbstractEventLoop) -> None:
        self._in_progress = in_progress
        self._loop = loop
        self._queue: deque[tuple[float, WaitingConnection]] = deque()
        self._admission: asyncio.Handle | None = None
        self._timer: asyncio.TimerHandle | None = None
        # An admitted request must not inherit the context of the one whose end admits it.
        self._context = copy_context()

    @property
    def waiting(self) -> int:
        """The number of waiting connections."""
        return len(self._queue)

    @property
    def has_capacity(self) -> bool:
        return not self._queue and self._in_progress() < MAX_CONCURRENT_REQUESTS

    def wait(self, connection: WaitingConnection) -> None:
        """Queue a connection; later its `resume` or `reject` is called."""
        self._queue.append((self._loop.time(), connection))
        if self._timer is None:
            self._start_timer()

    def release(self) -> None:
        """A request has been completed."""
        if self._queue and self._admission is None:
            self._admission = self._loop.call_soon(self._admit, context=self._context)

    def _admit(self) -> None:
        self._admission = None
        while self._queue and self._in_progress() < MAX_CONCURRENT_REQUESTS:
            self._queue.popleft()[1].resume()

    def _expire_timeouts(self) -> None:
        oldest_arrival = self._loop.time() - MAX_WAIT_SECONDS
        while self._queue and self._queue[0][0] <= oldest_arrival:
            self._queue.popleft()[1].reject()
        self._admit()
        self._timer = None
        if self._queue:
            self._start_timer()

    def _start_timer(self) -> None:
        self._timer = self._loop.call_later(
            CHECK_INTERVAL_SECONDS, self._expire_timeouts, context=self._context
        )
