"""Side by side: every measurement once a round, round after round, so that a noisy minute meets all alike."""

import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Event, Thread

import psycopg

from bench import pgbench, wrk
from bench.database import PLENTY, Database
from bench.machine import busy_seconds
from bench.servers import FLASHSALE, NAMES, Server
from bench.workloads import Script, Workload

MOST_PER_SECOND = 10_000
"""holds or orders that a work uses up in a second, at most"""


@dataclass(frozen=True)
class Key:
    """One row of the report: a work, and who does it."""

    workload: str
    by: str


@dataclass(frozen=True)
class Sample:
    """One measurement. Times are in seconds; the rest is how many processors were busy, with what.

    `api` and `p50`, `p99` are None where there is no HTTP; `latency` of pgbench is a call's average.
    """

    per_second: float
    p50: float | None
    p99: float | None
    api: float | None
    postgres: float
    generator: float
    others: float


Measurement = Callable[[float], Sample]


def interleave(
    measurements: dict[Key, Measurement], rounds: int, seconds: float, say: Callable[[str], None]
) -> dict[Key, list[Sample]]:
    """Measure everything in every round, each round beginning elsewhere."""
    samples: dict[Key, list[Sample]] = {key: [] for key in measurements}
    keys = list(measurements)
    for number in range(rounds):
        shift = number * len(keys) // rounds
        for key in keys[shift:] + keys[:shift]:
            sample = measurements[key](seconds)
            samples[key].append(sample)
            say(
                f"round {number + 1} of {rounds}: {key.workload}, {NAMES[key.by]}: {sample.per_second:,.0f}/s"
            )
    return samples


def over_http(
    database: Database, workload: Workload, by: str, server: Server, *, kept: bool = False
) -> Measurement:
    """Measures a work done by a server; empty tables before, audit() after.

    :param kept: the tables stay as they are instead, and so does the audit for whoever keeps them
    :raises AuditFailed:
    :raises Broken: an answer was not what the work expects
    """

    def measure(seconds: float) -> Sample:
        if kept:
            database.checkpoint()
        else:
            database.start_over(workload.products, 0 if workload.sold_out else PLENTY, workload.held)
        with tempfile.NamedTemporaryFile("w", suffix=".ids") as ids, _selling(database, workload.selling):
            arguments = (str(workload.products),)
            if workload.needs:
                # The ceiling knows no hold from another.
                database.place_holds(round(MOST_PER_SECOND * seconds) if by == FLASHSALE else 1)
                for (hold_id,) in database.execute("select hold_id from flashsale_data.holds"):
                    ids.write(f"{hold_id}\n")
                ids.flush()
                arguments = (ids.name,)
            if workload.needs == "orders":
                database.create_orders()
            before = time.monotonic(), server.cpu_seconds(), database.cpu_seconds(), busy_seconds()
            answers = wrk.load(server.url, workload.script, arguments, seconds)
            after = time.monotonic(), server.cpu_seconds(), database.cpu_seconds(), busy_seconds()
        database.settle()
        if answers.refused != (answers.count if workload.sold_out else 0):
            raise wrk.Broken(f"{workload.name} by {by}: {answers.refused} of {answers.count} were refused")
        if database.execute("select from flashsale_data.payments where result <> 'applied' limit 1"):
            raise wrk.Broken(f"{workload.name} by {by}: a payment was not applied")
        if not kept:
            database.audit(f"{workload.name} by {by}")
        took, api, postgres, busy = (b - a for a, b in zip(before, after, strict=True))
        return Sample(
            per_second=answers.per_second,
            p50=answers.p50,
            p99=answers.p99,
            api=api / took,
            postgres=postgres / took,
            generator=answers.cpu / took,
            others=(busy - api - postgres - answers.cpu) / took,
        )

    return measure


def straight(database: Database, script: Script, *, kept: bool = False) -> Measurement:
    """Measures a script of pgbench; empty tables before, audit() after.

    :param kept: the tables stay as they are instead, and so does the audit for whoever keeps them
    :raises AuditFailed:
    """

    def measure(seconds: float) -> Sample:
        if kept:
            database.checkpoint()
        else:
            database.start_over()
        before = time.monotonic(), database.cpu_seconds(), busy_seconds()
        found = pgbench.measure(database, script, seconds)
        after = time.monotonic(), database.cpu_seconds(), busy_seconds()
        if not kept:
            database.audit(script.name)
        took, postgres, busy = (b - a for a, b in zip(before, after, strict=True))
        return Sample(
            per_second=found.per_second,
            p50=None,
            p99=None,
            api=None,
            postgres=postgres / took,
            generator=found.cpu / took,
            others=(busy - postgres - found.cpu) / took,
        )

    return measure


@contextmanager
def _selling(database: Database, on: bool) -> Iterator[None]:
    """Somebody else buys: 100 calls a second, 10 units each."""
    stop = Event()

    def sell() -> None:
        with psycopg.connect(database.app_url, autocommit=True) as connection:
            while not stop.wait(0.01):
                connection.execute(
                    "select count(*) from flashsale.place_holds(%s, %s::bigint[], %s, %s::text[])",
                    (list(range(10)), [1] * 10, [1] * 10, [None] * 10),
                )

    seller = Thread(target=sell)
    if on:
        seller.start()
    try:
        yield
    finally:
        stop.set()
        if on:
            seller.join()
