"""Once a second: what a worker says of itself, and every ten what was out of the ordinary in them."""

import asyncio
import logging
import resource
import time
from contextlib import suppress
from pathlib import Path

from api.database.client import Checkout
from api.telemetry import metrics
from api.telemetry.logging import ration

log = logging.getLogger("flashsale.pulse")

BEAT = 1.0
"""seconds"""
SUMMARY = 10
"""beats from one summary to the next"""

_PAGE_BYTES = resource.getpagesize()


class Pulse:
    """The beat of one worker.

    :param checkout: whose connections to look at
    """

    def __init__(self, checkout: Checkout) -> None:
        self._checkout = checkout
        self._task: asyncio.Task[None] | None = None
        self._cpu = 0.0
        self._told = _totals()

    def start(self) -> None:
        metrics.workers.set(1)
        metrics.worker_start_time.set(time.time())
        metrics.worker_cpu.of[()] += 0
        self._task = asyncio.create_task(self._beat())

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task
        metrics.hand_over()

    async def _beat(self) -> None:
        loop = asyncio.get_running_loop()
        due = loop.time()
        while True:
            for _ in range(SUMMARY):
                self.look()
                due = max(due + BEAT, loop.time())
                await asyncio.sleep(due - loop.time())
                metrics.event_loop_lag.observe((), loop.time() - due)
            self.summarise()

    def look(self) -> None:
        """Bring everything up to this instant."""
        cpu = time.process_time()
        metrics.worker_cpu.of[()] += cpu - self._cpu
        self._cpu = cpu
        resident = int(Path("/proc/self/statm").read_bytes().split()[1])
        metrics.worker_resident.set(resident * _PAGE_BYTES)
        size, idle, waiting = self._checkout.pool()
        metrics.pool_connections.labels("idle").set(idle)
        metrics.pool_connections.labels("used").set(size - idle)
        metrics.pool_waiting.set(waiting)
        metrics.log_lines_dropped.of[()] = ration.dropped
        metrics.hand_over()

    def summarise(self) -> None:
        """A line, if there was more than requests served and refused for a reason of the sale's."""
        totals = _totals()
        new = {name: total - self._told.get(name, 0) for name, total in totals.items()}
        self._told = totals
        if any(new[name] for name in _REMARKABLE):
            log.info(
                f"the last {SUMMARY * BEAT:.0f} seconds", extra={name: n for name, n in new.items() if n}
            )


_REMARKABLE = ("not_served", "sent_again", "calls_failed", "replays", "log_lines_dropped")


def _totals() -> dict[str, int]:
    """Since the process began; refusals each by their code."""
    return {
        "requests": int(metrics.answered.count),
        "not_served": int(metrics.answered.failed),
        "sent_again": int(metrics.sent_again.total),
        "calls_failed": int(metrics.calls_failed.total),
        "replays": int(metrics.replays.total),
        "reads_shared": int(metrics.reads_shared.total),
        "log_lines_dropped": int(metrics.log_lines_dropped.total),
        **{f"refused_{code}": int(count) for (code,), count in metrics.refusals.of.items()},
    }
