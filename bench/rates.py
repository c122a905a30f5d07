"""Requests a second: every workload by every server that serves it, side by side."""

import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path

from bench import report, targets, wrk
from bench.database import Database, running_database
from bench.redis_store import running_redis
from bench.rounds import Key, Measurement, Store, interleave, over_http, straight
from bench.section import Say, Section
from bench.servers import (
    CALL_EACH,
    CEILING,
    FLASHSALE,
    LOCK_AND_SUM,
    NAMES,
    PGBENCH,
    REDIS,
    REDIS_FSYNC,
    Server,
    running_server,
)  # fmt: skip
from bench.workloads import HOT_HOLD, SCRIPTS, WORKLOADS

POOL_SIZES = (4, 8, 16, 2)


def run(say: Say, *, quick: bool = False) -> Section:
    """Measure all of workloads.py."""
    rounds, seconds = (3, 2) if quick else (5, 8)
    workloads = [workload for workload in WORKLOADS if workload.quick or not quick]
    with running_database() as database, running_servers(database, quick, seconds, say) as servers:
        measurements: dict[Key, Measurement] = {
            Key(workload.name, by): over_http(store, workload, by, server)
            for workload in workloads
            for by in workload.servers
            for server, store in [servers[by]]
        }
        measurements |= {Key(script.name, PGBENCH): straight(database, script) for script in SCRIPTS}
        samples = interleave(measurements, rounds, seconds, say)
    text = f"""{rounds} interleaved rounds of {seconds} seconds each, with {wrk.CONNECTIONS} connections
unless the row says otherwise.

{report.of_samples(samples)}
"""
    return Section(text, targets.judge_all(targets.RATES, samples), samples)


@contextmanager
def running_servers(
    database: Database, quick: bool, seconds: float, say: Say
) -> Iterator[dict[str, tuple[Server, Store]]]:
    """flashsale and the baselines, each with the store behind it; those with a pool at its best size."""
    logs = Path(tempfile.mkdtemp(prefix="flashsale-bench-logs-"))
    with ExitStack() as stack:

        def server(application: str, **environment: str) -> AbstractContextManager[Server]:
            return running_server(application, database.app_url, logs / f"{application}.log", environment)

        def pooled(application: str) -> tuple[Server, Store]:
            rates = {}
            for size in POOL_SIZES[:2] if quick else POOL_SIZES:
                database.start_over(held=HOT_HOLD.held)
                with server(application, BENCH_POOL_SIZE=str(size)) as tried:
                    rates[size] = wrk.load(tried.url, HOT_HOLD.script, ("1",), seconds).per_second
            best = max(rates, key=rates.__getitem__)
            say(f"{NAMES[application]}: {best} connections are best of " +
                ", ".join(f"{size} ({rate:,.0f}/s)" for size, rate in rates.items()))  # fmt: skip
            return stack.enter_context(server(application, BENCH_POOL_SIZE=str(best))), database

        def redis(*, fsync: bool) -> tuple[Server, Store]:
            store = stack.enter_context(running_redis(fsync=fsync))
            return stack.enter_context(server(REDIS, BENCH_REDIS_SOCKET=str(store.socket))), store

        yield {
            FLASHSALE: (stack.enter_context(server(FLASHSALE)), database),
            CEILING: (stack.enter_context(server(CEILING)), database),
            CALL_EACH: pooled(CALL_EACH),
            LOCK_AND_SUM: pooled(LOCK_AND_SUM),
            REDIS: redis(fsync=False),
            REDIS_FSYNC: redis(fsync=True),
        }
