"""A million holds lapse at one instant: when their units are available, when all are recorded, latencies."""

import http.client
import json
import time
from datetime import UTC, datetime, timedelta
from threading import Thread
from typing import NamedTuple

from bench import dataset, report, wrk
from bench.database import Database
from bench.open_loop import open_loop
from bench.section import Say, Section
from bench.servers import Server
from flashsale.database.pg_cron import unschedule

FILLED_A_SECOND = 15_000
"""holds that dataset.fill() inserts in a second, at least"""


def run(database: Database, server: Server, count: int, settled: int, unswept: int, say: Say) -> Section:
    """Load from `settled` seconds before the instant until as long after sweep() has recorded all.

    :param unswept: seconds after the instant without a sweep()
    """
    # pg_cron would call sweep() every minute or every 5 seconds, depending on its version.
    unschedule(database.connection, database.url)
    database.start_over()
    ready = datetime.now(UTC) + timedelta(seconds=count / FILLED_A_SECOND + settled + 5)
    instant = ready.replace(microsecond=0)
    dataset.fill(database, active=count, finished=0, lapse_at=instant)
    database.checkpoint()
    at = instant.timestamp()
    if time.time() > at - settled - 1:
        raise wrk.BenchmarkFailed("inserting the holds took longer than they live")
    say(f"{count:,} holds lapse in {at - time.time():.0f} s")
    time.sleep(at - settled - 1 - time.time())
    with open_loop(server, wrk.CONNECTIONS) as load:
        watch = _Watch(server, count, at)
        time.sleep(at + unswept - time.time())
        begin, calls = time.time(), 0
        while _unswept(database, instant):
            database.execute("call flashsale.sweep()")
            calls += 1
            say(f"sweep() has recorded {count - _unswept(database, instant):,} of {count:,}")
        end = time.time()
        time.sleep(settled)
        over = time.time()
    database.settle()
    database.audit("a million holds lapsed")
    sent, came = watch.first_after()
    spans = {
        "before": (at - settled, at),
        "the second after the instant": (at, at + 1),
        "no sweep() yet": (at + 1, begin),
        "while sweep() runs": (begin, end),
        "after": (end, over),
    }
    rows = []
    for name, (start, stop) in spans.items():
        span = load.of(201, start, stop)
        latencies = [f"{latency * 1000:.1f}" for latency in (span.p50, span.p99, span.most) if latency]
        rows.append([name, f"{stop - start:.1f}", f"{span.per_second:,.0f}", *(latencies or [""] * 3)])
    return Section(f"""### {count:,} holds lapse at one instant

The first `GET /api/products/1` sent after the instant ({sent * 1000:.1f} ms after) had its response
{came * 1000:.1f} ms after it. It showed their units as available, as did all later ones, before any call of
`sweep()`. Then `sweep()`, which works for 20 seconds at most, recorded all of them in
{end - begin:.1f} seconds and {calls} call{"s" if calls > 1 else ""}.

{report.table(["holds of the same product", "seconds", "a second", "p50 ms", "p99 ms", "longest ms"], rows)}
""")


def _unswept(database: Database, instant: datetime) -> int:
    query = "select coalesce(sum(held), 0)::int from flashsale_data.lapses where lapses_at = %s"
    return int(database.execute(query, instant)[0][0])


class _Answer(NamedTuple):
    sent: float
    came: float
    available: int


class _Watch:
    """Requests product 1 over HTTP again and again, from shortly before the instant until shortly after.

    :param count: units that become available at once
    :param at: the instant (time.time())
    """

    def __init__(self, server: Server, count: int, at: float) -> None:
        self._server = server
        self._count = count
        self._at = at
        self._answers: list[_Answer] = []
        self._thread = Thread(target=self._watch)
        self._thread.start()

    def _watch(self) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self._server.port, timeout=10)
        time.sleep(max(0, self._at - 1 - time.time()))
        while (sent := time.time()) < self._at + 1:
            connection.request("GET", "/api/products/1")
            available = json.loads(connection.getresponse().read())["available_stock"]
            self._answers.append(_Answer(sent, time.time(), available))
            time.sleep(0.001)
        connection.close()

    def first_after(self) -> tuple[float, float]:
        """When the first request after the instant was sent and answered, in seconds after it.

        :raises BenchmarkFailed: its response did not show the units, or one before the instant did
        """
        self._thread.join()
        answers = self._answers
        # The load only takes units: the number rises once, when the holds lapse.
        back = [n for n in range(1, len(answers)) if answers[n].available > answers[n - 1].available]
        if len(back) != 1:
            raise wrk.BenchmarkFailed(f"the available stock rose {len(back)} times around the instant")
        last, first = answers[back[0] - 1], answers[back[0]]
        if (
            last.sent > self._at
            or first.came < self._at
            or first.available - last.available < self._count // 2
        ):
            raise wrk.BenchmarkFailed(f"the units were not available at {self._at}: {last}, then {first}")
        after = next(answer for answer in answers if answer.sent > self._at)
        return after.sent - self._at, after.came - self._at
