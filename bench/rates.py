"""How many requests a second: every work by everybody who does it, side by side."""

import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from bench import report, targets, wrk
from bench.database import Database, running_database
from bench.rounds import Key, Measurement, interleave, over_http, straight
from bench.section import Say, Section
from bench.servers import CALL_EACH, CEILING, FLASHSALE, LOCK_AND_SUM, NAMES, PGBENCH, Server, running_server
from bench.workloads import HOT_HOLD, SCRIPTS, WORKLOADS

POOL_SIZES = (4, 8, 16, 2)


def run(say: Say, *, quick: bool = False) -> Section:
    """Measure all of workloads.py."""
    rounds, seconds = (3, 2) if quick else (5, 8)
    workloads = [workload for workload in WORKLOADS if workload.quick or not quick]
    pool_sizes = POOL_SIZES[:2] if quick else POOL_SIZES
    with running_database() as database, running_servers(database, pool_sizes, seconds, say) as servers:
        measurements: dict[Key, Measurement] = {
            Key(workload.name, by): over_http(database, workload, by, servers[by])
            for workload in workloads
            for by in workload.servers
        }
        measurements |= {Key(script.name, PGBENCH): straight(database, script) for script in SCRIPTS}
        samples = interleave(measurements, rounds, seconds, say)
    text = f"""{rounds} interleaved rounds of {seconds} seconds each, {wrk.CONNECTIONS} connections.

{report.of_samples(samples)}
"""
    return Section(text, targets.judge_all(targets.RATES, samples), samples)


@contextmanager
def running_servers(
    database: Database, pool_sizes: tuple[int, ...], seconds: float, say: Say
) -> Iterator[dict[str, Server]]:
    """flashsale and the baselines, those with a pool at its best size."""
    logs = Path(tempfile.mkdtemp(prefix="flashsale-bench-logs-"))
    with ExitStack() as stack:

        def start(application: str, **environment: str) -> Server:
            return stack.enter_context(
                running_server(application, database.app_url, logs / f"{application}.log", environment)
            )

        servers = {FLASHSALE: start(FLASHSALE), CEILING: start(CEILING)}
        for application in (CALL_EACH, LOCK_AND_SUM):
            rates = {}
            for size in pool_sizes:
                database.start_over(held=HOT_HOLD.held)
                with running_server(
                    application, database.app_url, logs / f"{application}.log", {"BENCH_POOL_SIZE": str(size)}
                ) as server:
                    rates[size] = wrk.load(server.url, HOT_HOLD.script, ("1",), seconds).per_second
            best = max(rates, key=rates.__getitem__)
            say(f"{NAMES[application]}: {best} connections are best of " +
                ", ".join(f"{size} ({rate:,.0f}/s)" for size, rate in rates.items()))  # fmt: skip
            servers[application] = start(application, BENCH_POOL_SIZE=str(best))
        yield servers
