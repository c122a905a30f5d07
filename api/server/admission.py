"""Who comes in when more ask than can be served: so many at once; the others wait outside, for a moment.

A request that was let in costs the event loop as much when it is refused as when it is served. A server that
lets in whoever asks, and is asked for more than it can carry, soon does nothing but refuse those who have
waited in vain. So whoever comes while MOST_AT_ONCE are inside is kept as the bytes that came, not yet parsed,
and no more is read from that connection: there TCP makes the client wait, which costs nothing here.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from contextvars import copy_context
from typing import Protocol

MOST_AT_ONCE = 2000
"""requests inside, those of live streams included; a fifth of a second's work"""
PATIENCE = 0.5
"""seconds that one may wait outside before it is turned away"""
TICK = 0.05
"""seconds between two looks at the clock while anybody waits outside"""


class Caller(Protocol):
    """A connection whose next request has begun to arrive."""

    def come_in(self) -> None:
        """Go on."""

    def turn_away(self) -> None:
        """Refuse it, at as little cost as can be."""


class Gate:
    """The one way in.

    :param inside: how many requests are inside
    """

    def __init__(self, inside: Callable[[], int], loop: asyncio.AbstractEventLoop) -> None:
        self._inside = inside
        self._loop = loop
        self._outside: deque[tuple[float, Caller]] = deque()
        self._opening: asyncio.Handle | None = None
        self._watch: asyncio.TimerHandle | None = None
        # Who comes in begins something new, and nothing of the request after whose end it comes in.
        self._context = copy_context()

    @property
    def outside(self) -> int:
        """How many wait."""
        return len(self._outside)

    @property
    def is_open(self) -> bool:
        return not self._outside and self._inside() < MOST_AT_ONCE

    def wait(self, caller: Caller) -> None:
        """Stand behind all who wait already; `come_in` or `turn_away` is called in the end."""
        self._outside.append((self._loop.time(), caller))
        if self._watch is None:
            self._watch = self._loop.call_later(TICK, self._look_at_the_clock, context=self._context)

    def one_less(self) -> None:
        """A request has been answered."""
        if self._outside and self._opening is None:
            self._opening = self._loop.call_soon(self._let_in, context=self._context)

    def _let_in(self) -> None:
        self._opening = None
        while self._outside and self._inside() < MOST_AT_ONCE:
            self._outside.popleft()[1].come_in()

    def _look_at_the_clock(self) -> None:
        oldest = self._loop.time() - PATIENCE
        while self._outside and self._outside[0][0] <= oldest:
            self._outside.popleft()[1].turn_away()
        self._let_in()
        again = self._outside
        self._watch = (
            self._loop.call_later(TICK, self._look_at_the_clock, context=self._context) if again else None
        )
