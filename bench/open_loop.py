"""Runs bench/load_generator.py in a process of its own, and evaluates its log."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from bench import ROOT
from bench.load_generator import LoadPlan, ResponseLog
from bench.servers import Server
from bench.wrk import BenchmarkFailed

BODY = '{"product_id":1,"qty":1}'
HOLD = (
    "POST /api/holds HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
    f"Content-Length: {len(BODY)}\r\n\r\n{BODY}"
)
"""one unit of product 1"""


@dataclass(frozen=True)
class Span:
    """Responses with one status to requests that were due in a span of time. Times are in seconds."""

    per_second: float
    count: int
    p50: float | None
    p99: float | None
    most: float | None


class OpenLoop:
    """A running load. After its end, `seen` has the responses and `cpu` the generator's processor time."""

    seen: ResponseLog
    cpu: float

    def of(self, status: int, begin: float, end: float) -> Span:
        """Latencies of what was due from `begin` to `end` (time.time()), and how many responses came then."""
        seen = self.seen
        latencies, count = [], 0
        for due, came, found in zip(seen.due, seen.came, seen.status, strict=True):
            if found == status:
                count += begin <= came < end
                if begin <= due < end:
                    latencies.append(came - due)
        latencies.sort()

        def quantile(share: float) -> float | None:
            return latencies[int(share * (len(latencies) - 1))] if latencies else None

        return Span(count / (end - begin), count, quantile(0.5), quantile(0.99), quantile(1))


@contextmanager
def open_loop(server: Server, connections: int, per_second: float | None = None) -> Iterator[OpenLoop]:
    """Request holds of product 1 as long as the context lasts.

    :param per_second: so many are due; None: each connection sends the next request after each response
    :raises BenchmarkFailed: a connection was lost, a response was missing, a 503 had no Retry-After, or a
        status was neither 201 nor 503
    """
    plan = LoadPlan(server.port, HOLD, connections, per_second)
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "seen"
        child = subprocess.Popen(
            [sys.executable, "-m", "bench.load_generator", path],
            cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert child.stdin is not None and child.stdout is not None
        try:
            print(json.dumps(asdict(plan)), file=child.stdin, flush=True)
            if child.stdout.readline() != "connected\n":
                raise BenchmarkFailed(f"the load generator could not open {connections} connections")
            running = OpenLoop()
            print(file=child.stdin, flush=True)
            yield running
            print(file=child.stdin, flush=True)
            _, status, usage = os.wait4(child.pid, 0)
            child.returncode = os.waitstatus_to_exitcode(status)
        finally:
            if child.returncode is None:
                child.kill()
                child.wait()
            child.stdin.close()
            child.stdout.close()
        if child.returncode != 0:
            raise BenchmarkFailed("the load generator failed")
        running.seen = ResponseLog.read(path)
        running.cpu = usage.ru_utime + usage.ru_stime
    _check(running.seen)


def _check(seen: ResponseLog) -> None:
    others = set(seen.status) - {201, 503}
    if seen.broken or seen.without_retry_after or others:
        raise BenchmarkFailed(
            f"{seen.broken} connections broke, {seen.without_retry_after} responses 503 without Retry-After;"
            f" unexpected statuses: {sorted(others) or 'none'}"
        )
