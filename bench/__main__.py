"""make bench, make bench QUICK=1."""

import os
import platform
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path

import click

from bench import plot, report, wrk
from bench.database import Database, running_database
from bench.rounds import Key, Measurement, interleave, over_http, straight
from bench.servers import CALL_EACH, CEILING, FLASHSALE, LOCK_AND_SUM, NAMES, PGBENCH, Server, running_server
from bench.targets import TARGETS, judge
from bench.works import HOT_HOLD, SCRIPTS, WORKS

RESULTS = Path(__file__).parent / "results"
POOL_SIZES = (4, 8, 16, 2)

Say = Callable[[str], None]


@click.command()
@click.option("--quick", is_flag=True, help="Within three minutes: short rounds, and no growth.")
def main(quick: bool) -> None:
    """Measure everything and write bench/results/."""
    started = time.monotonic()

    def say(text: str) -> None:
        click.echo(f"{time.monotonic() - started:6.0f} s  {text}", err=True)

    rounds, seconds = (3, 2) if quick else (7, 8)
    works = [work for work in WORKS if work.quick or not quick]
    pool_sizes = POOL_SIZES[:2] if quick else POOL_SIZES
    with running_database() as database, running_servers(database, pool_sizes, seconds, say) as servers:
        measurements: dict[Key, Measurement] = {
            Key(work.name, by): over_http(database, work, by, servers[by])
            for work in works
            for by in work.servers
        }
        measurements |= {Key(script.name, PGBENCH): straight(database, script) for script in SCRIPTS}
        samples = interleave(measurements, rounds, seconds, say)
        version = database.execute("show server_version")[0][0].split()[0]

    verdicts = [judge(target, samples) for target in TARGETS]
    title = f"flashsale on {os.cpu_count()} processors, PostgreSQL {version}, {datetime.now(UTC):%Y-%m-%d}"
    name = "quick" if quick else "full"
    text = f"""# {title}

`make bench{" QUICK=1" if quick else ""}`: {rounds} interleaved rounds of {seconds} seconds each,
{wrk.CONNECTIONS} connections; Python {platform.python_version()}, {platform.machine()}; every commit durable;
audit() empty after each measurement. What the rows mean is in [bench/README.md](../README.md).

{report.of_verdicts(verdicts)}

A ratio is the median of the rounds' ratios.

![requests a second]({name}.svg)

{report.of_samples(samples)}

CPUs: how many processors the HTTP server, PostgreSQL and the load generator kept busy, and others on this
machine, who had no business here.
"""
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.md").write_text(text)
    (RESULTS / f"{name}.svg").write_text(plot.bars(samples, f"Requests a second: {title}"))
    click.echo(text)
    say(f"written to {RESULTS}")


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


if __name__ == "__main__":
    main()
