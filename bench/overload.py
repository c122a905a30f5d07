"""Overload: requests arrive at twice the rate that the server can serve."""

import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from bench import report, targets
from bench.database import Database, running_database
from bench.machine import busy_seconds, descendants, own_and_resident
from bench.open_loop import OpenLoop, open_loop
from bench.rounds import Sample
from bench.section import Say, Section
from bench.servers import FLASHSALE, Server, running_server

UNCOUNTED_SECONDS = 1.0
"""seconds at the beginning that are not measured: the queues fill"""
HEAD = (
    "round", "offered/s", "sent/s", "201/s", "503/s", "201: p50 ms", "p99", "p99 of 1st half", "2nd half",
    "503: p99", "waiting at the end", "answered within ms", "worker grew by MB", "sent late by ms",
)  # fmt: skip


@dataclass(frozen=True)
class Size:
    """
    :param peak_connections: numbers of connections in a closed loop; the highest rate is the peak
    :param connections: among which twice the peak is spread
    """

    rounds: int = 5
    seconds: int = 8
    peak_connections: tuple[int, ...] = (64, 256, 1000)
    connections: int = 4000


@dataclass(frozen=True)
class Round:
    """One round at twice the peak. Latencies are in seconds, memory in bytes."""

    offered: float
    sent: float
    served: float
    refused: float
    served_p50: float | None
    served_p99: float | None
    first_p99: float | None
    last_p99: float | None
    refused_p99: float | None
    waiting: int
    drained: float
    grown: int
    late: float


def run(say: Say, size: Size = Size()) -> Section:
    """In every round, find the peak, then send at twice that rate."""
    log = Path(tempfile.mkdtemp(prefix="flashsale-bench-logs-")) / "overload.log"
    peaks: list[Sample] = []
    twice: list[Sample] = []
    rounds: list[Round] = []
    with running_database() as database, running_server(FLASHSALE, database.app_url, log) as server:
        for number in range(size.rounds):
            found = {
                connections: _load(database, server, connections, None, size.seconds)[0]
                for connections in size.peak_connections
            }
            best = max(found, key=lambda connections: found[connections].per_second)
            peaks.append(found[best])
            sample, seen = _load(database, server, size.connections, 2 * found[best].per_second, size.seconds)
            twice.append(sample)
            rounds.append(seen)
            say(
                f"round {number + 1} of {size.rounds}: {found[best].per_second:,.0f}/s at most, by {best}"
                f" connections; then {sample.per_second:,.0f}/s of {seen.offered:,.0f}/s"
            )
    samples = {targets.PEAK: peaks, targets.TWICE: twice}
    text = f"""### Overload

Holds of one hot product, {size.rounds} rounds of {size.seconds} seconds. The peak is the highest rate of
{_and(size.peak_connections)} connections in a closed loop. Then twice as many requests are due, evenly,
on {size.connections:,} connections, whether or not the server keeps up: latencies count from when a request
was due. A request that is due while all connections wait is not sent.

{report.of_samples(samples)}

{report.table(HEAD, [_row(number, seen) for number, seen in enumerate(rounds, 1)])}

Waiting at the end: connections without a response when the load stopped, and how long until the last had one.
"""
    return Section(text, targets.judge_all(targets.OVERLOAD, samples), samples)


def _load(
    database: Database, server: Server, connections: int, per_second: float | None, seconds: float
) -> tuple[Sample, Round]:
    """Load for so many measured seconds; audit() after.

    :raises AuditFailed:
    :raises BenchmarkFailed: see open_loop.py
    """
    database.start_over()
    (worker,) = descendants(server.pid)
    before_memory = _own(worker)
    with open_loop(server, connections, per_second) as load:
        time.sleep(UNCOUNTED_SECONDS)
        before = time.time(), server.cpu_seconds(), database.cpu_seconds(), busy_seconds()
        time.sleep(seconds)
        after = time.time(), server.cpu_seconds(), database.cpu_seconds(), busy_seconds()
    database.settle()
    database.audit(f"holds by {connections} connections")
    begin, end = before[0], after[0]
    half = (begin + end) / 2
    served, refused = load.of(201, begin, end), load.of(503, begin, end)
    took, api, stored, busy = (b - a for a, b in zip(before, after, strict=True))
    generator = load.cpu / (load.seen.ended - load.seen.began)
    sample = Sample(
        served.per_second, served.p50, served.p99, api / took, stored / took, generator,
        (busy - api - stored) / took - generator,
    )  # fmt: skip
    return sample, Round(
        offered=per_second or 0,
        sent=_sent(load),
        served=served.per_second,
        refused=refused.per_second,
        served_p50=served.p50,
        served_p99=served.p99,
        first_p99=load.of(201, begin, half).p99,
        last_p99=load.of(201, half, end).p99,
        refused_p99=refused.p99,
        waiting=load.seen.waiting,
        drained=max(load.seen.came) - load.seen.ended,
        grown=_own(worker) - before_memory,
        late=load.seen.late,
    )


def _sent(load: OpenLoop) -> float:
    """Requests a second that were sent, from the beginning."""
    return len(load.seen.due) / (load.seen.ended - load.seen.began)


def _own(pid: int) -> int:
    sizes = own_and_resident(pid)
    assert sizes is not None
    return sizes[0]


def _row(number: int, seen: Round) -> list[str]:
    latencies = seen.served_p50, seen.served_p99, seen.first_p99, seen.last_p99, seen.refused_p99
    return [
        str(number),
        *[f"{rate:,.0f}" for rate in (seen.offered, seen.sent, seen.served, seen.refused)],
        *["" if latency is None else f"{latency * 1000:.0f}" for latency in latencies],
        f"{seen.waiting:,}",
        f"{seen.drained * 1000:.0f}",
        f"{seen.grown / 2**20:+.1f}",
        f"{seen.late * 1000:.0f}",
    ]


def _and(numbers: tuple[int, ...]) -> str:
    return " and ".join(", ".join(map(str, numbers)).rsplit(", ", 1))
