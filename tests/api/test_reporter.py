"""The reporter's task: it outlives what the system refuses for a while."""

import asyncio
import errno
import logging

from api.telemetry.reporter import INTERVAL_SECONDS, Reporter
from tests.api.event_loop_clock import in_simulated_time


@in_simulated_time
async def test_it_goes_on_after_an_error_of_the_system(monkeypatch, caplog) -> None:
    """No descriptor is left to open a file with, as when too many clients are connected."""
    reporter = Reporter(lambda: (0, 0, 0))
    update = reporter.update
    calls = 0

    def refused_at_first() -> None:
        nonlocal calls
        calls += 1
        if calls <= 2:
            raise OSError(errno.EMFILE, "Too many open files")
        update()

    monkeypatch.setattr(reporter, "update", refused_at_first)
    with caplog.at_level(logging.WARNING, "flashsale.reporter"):
        reporter.start()
        await asyncio.sleep(3.5 * INTERVAL_SECONDS)
        await reporter.stop()
    assert calls == 4
    assert caplog.messages == 2 * [
        "the metrics of this worker are not up to date: [Errno 24] Too many open files"
    ]
