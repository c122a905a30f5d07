"""An event loop whose clock hardly moves while tasks run, and jumps to the next timer when all of them wait.

A wait of a second takes no time, and a busy machine causes no timeouts. For
code that waits on nothing but timers and itself: no sockets, no threads.
"""

import asyncio
import selectors
from collections.abc import Callable, Coroutine
from functools import wraps
from typing import Any

TURN_SECONDS = 1e-5
"""seconds that each turn of the loop takes by its clock, so that who goes round in circles comes to an end"""


class _Jumping(selectors.DefaultSelector):
    """Instead of waiting for a while, has it pass."""

    passed = 0.0

    def select(self, timeout: float | None = None) -> list[Any]:
        assert timeout is not None, "everybody waits, and nothing is to come"
        self.passed += max(timeout, TURN_SECONDS)
        return super().select(0)


class _Loop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self._jumping = _Jumping()
        super().__init__(self._jumping)

    def time(self) -> float:
        return self._jumping.passed


def in_simulated_time(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Run an async test in a loop of its own, for at most 600 seconds of that loop's."""

    @wraps(test)
    def run(*args: Any, **kwargs: Any) -> None:
        with asyncio.Runner(loop_factory=_Loop) as runner:
            runner.run(asyncio.wait_for(test(*args, **kwargs), 600))

    return run
