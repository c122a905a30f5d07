"""Once a second, the gauges of a worker; every ten seconds, a log line if anything unusual happened."""

import asyncio
import logging
import resource
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from api.telemetry import metrics
from api.telemetry.logging import rate_limit

log = logging.getLogger("flashsale.reporter")

INTERVAL_SECONDS = 1.0
"""seconds between two updates"""
UPDATES_PER_SUMMARY = 10

_PAGE_BYTES = resource.getpagesize()


class Reporter:
    """Updates the metrics of one worker.

    :param pool_stats: returns the connection pool's size, its idle connections and its waiting requests
    """

    def __init__(self, pool_stats: Callable[[], tuple[int, int, int]]) -> None:
        self._pool_stats = pool_stats
        self._task: asyncio.Task[None] | None = None
        self._cpu = 0.0
        self._summarized = _totals()

    def start(self) -> None:
        metrics.workers.set(1)
        metrics.worker_start_time.set(time.time())
        metrics.worker_cpu.by_labels[()] += 0
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task
        with suppress(OSError):
            metrics.flush()

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        due = loop.time()
        while True:
            for _ in range(UPDATES_PER_SUMMARY):
                try:
                    self.update()
                except OSError as error:  # guard: reporter-survives
                    log.warning("the metrics of this worker are not up to date: %s", error)
                due = max(due + INTERVAL_SECONDS, loop.time())
                await asyncio.sleep(due - loop.time())
                metrics.event_loop_lag.observe((), loop.time() - due)
            self.log_summary()

    def update(self) -> None:
        """Update the gauges, and flush the counters."""
        cpu = time.process_time()
        metrics.worker_cpu.by_labels[()] += cpu - self._cpu
        self._cpu = cpu
        resident = int(Path("/proc/self/statm").read_bytes().split()[1])
        metrics.worker_resident.set(resident * _PAGE_BYTES)
        size, idle, waiting = self._pool_stats()
        metrics.pool_connections.labels("idle").set(idle)
        metrics.pool_connections.labels("used").set(size - idle)
        metrics.pool_waiting.set(waiting)
        metrics.log_lines_dropped.by_labels[()] = rate_limit.dropped
        metrics.flush()

    def log_summary(self) -> None:
        """Log what happened since the last summary, if any of it was unusual; ordinary refusals are not."""
        totals = _totals()
        new = {name: total - self._summarized.get(name, 0) for name, total in totals.items()}
        self._summarized = totals
        if any(new[name] for name in _UNUSUAL):
            log.info(
                f"summary of the last {UPDATES_PER_SUMMARY * INTERVAL_SECONDS:.0f} seconds",
                extra={name: count for name, count in new.items() if count},
            )


_UNUSUAL = ("failed_requests", "retries", "failed_calls", "replays", "log_lines_dropped")


def _totals() -> dict[str, int]:
    """Counts since the process started; problems by their code."""
    return {
        "requests": int(metrics.responses.count),
        "failed_requests": int(metrics.responses.failed),
        "retries": int(metrics.request_retries.total),
        "failed_calls": int(metrics.calls_failed.total),
        "replays": int(metrics.replays.total),
        "reads_coalesced": int(metrics.reads_coalesced.total),
        "log_lines_dropped": int(metrics.log_lines_dropped.total),
        **{f"problem_{code}": int(count) for (code,), count in metrics.problems.by_labels.items()},
    }
