"""Side by side: every measurement once a round, so that noise of the machine falls on all of them alike."""

import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Event, Thread
from typing import Protocol

import psycopg

from bench import pgbench, wrk
from bench.database import PLENTY, Database
from bench.machine import busy_seconds
from bench.servers import FLASHSALE, NAMES, Server
from bench.workloads import Script, Workload

MOST_PER_SECOND = 10_000
"""holds or orders that a workload uses up in a second, at most"""


class Store(Protocol):
    """What a server keeps its holds in: PostgreSQL (bench/database.py) or Redis (bench/redis_store.py)."""

    def cpu_seconds(self) -> float: ...

    def start_over(self, products: int = 1, stock: int = PLENTY, held: int = 0) -> None: ...

    def checkpoint(self) -> None: ...

    def settle(self) -> None: ...

    def audit(self, after: str) -> None: ...


@dataclass(frozen=True)
class Key:
    """One row of the report: a workload, and which server or tool runs it (bench/servers.py)."""

    workload: str
    by: str


@dataclass(frozen=True)
class Sample:
    """One measurement. Times are in seconds; the rest is how many processors were busy with what.

    `store` is PostgreSQL or Redis; `others` are processes that do not belong to the benchmark. `api`, `p50`
    and `p99` are None where there is no HTTP.
    """

    per_second: float
    p50: float | None
    p99: float | None
    api: float | None
    store: float
    generator: float
    others: float


Measurement = Callable[[float], Sample]


def interleave(
    measurements: dict[Key, Measurement], rounds: int, seconds: float, say: Callable[[str], None]
) -> dict[Key, list[Sample]]:
    """Measure everything once a round, each round beginning with another measurement."""
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
    store: Store, workload: Workload, by: str, server: Server, *, kept: bool = False
) -> Measurement:
    """Measures a workload served by a server; empty tables before, audit() after.

    :param kept: the tables stay as they are, and the caller audits them once
    :raises AuditFailed:
    :raises BenchmarkFailed: an answer was not what the workload expects
    """

    def measure(seconds: float) -> Sample:
        if kept:
            store.checkpoint()
        else:
            store.start_over(workload.products, 0 if workload.sold_out else PLENTY, workload.held)
        with _prepared(store, workload, by, seconds) as arguments:
            before = time.monotonic(), server.cpu_seconds(), store.cpu_seconds(), busy_seconds()
            answers = wrk.load(server.url, workload.script, arguments, seconds, workload.connections)
            after = time.monotonic(), server.cpu_seconds(), store.cpu_seconds(), busy_seconds()
        store.settle()
        if answers.refused != (answers.count if workload.sold_out else 0):
            raise wrk.BenchmarkFailed(
                f"{workload.name} by {by}: {answers.refused} of {answers.count} were refused"
            )
        if not kept:
            store.audit(f"{workload.name} by {by}")
        took, api, stored, busy = (b - a for a, b in zip(before, after, strict=True))
        return Sample(
            per_second=answers.per_second,
            p50=answers.p50,
            p99=answers.p99,
            api=api / took,
            store=stored / took,
            generator=answers.cpu / took,
            others=(busy - api - stored - answers.cpu) / took,
        )

    return measure


def straight(database: Database, script: Script, *, kept: bool = False) -> Measurement:
    """Measures a script of pgbench; empty tables before, audit() after.

    :param kept: the tables stay as they are, and the caller audits them once
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
            store=postgres / took,
            generator=found.cpu / took,
            others=(busy - postgres - found.cpu) / took,
        )

    return measure


@contextmanager
def _prepared(store: Store, workload: Workload, by: str, seconds: float) -> Iterator[tuple[str, ...]]:
    """What a workload needs around it, and the arguments of its script."""
    if not isinstance(store, Database):
        yield (str(workload.products),)
        return
    if workload.limit is not None:
        store.execute("select flashsale.change_terms('{1}', p_max_per_buyer => %s)", workload.limit)
    if workload.needs:
        # To the ceiling all holds are one.
        store.place_holds(round(MOST_PER_SECOND * seconds) if by == FLASHSALE else 1)
    if workload.needs == "orders":
        store.create_orders()
    with tempfile.NamedTemporaryFile("w", suffix=".ids") as ids, _selling(store, workload.selling):
        if workload.needs:
            holds = store.execute("select hold_id from flashsale_data.holds")
            ids.writelines(f"{hold_id}\n" for (hold_id,) in holds)
            ids.flush()
        yield (ids.name if workload.needs else str(workload.products),)


@contextmanager
def _selling(database: Database, on: bool) -> Iterator[None]:
    """Another client buys: 100 calls a second, 10 units each."""
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
