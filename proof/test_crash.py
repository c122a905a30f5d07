"""Processes die by kill -9 under load: every acknowledged write is there, none twice, and service resumes.

Buyers call over HTTP and in SQL, record acknowledged writes, and retry an unknown outcome with its key. The
master of gunicorn restarts its workers, PostgreSQL its backends; the test restarts a killed postmaster, as a
supervisor does.
"""

import asyncio
import os
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from random import Random

import psycopg
import pytest

from proof.acknowledged_writes import AcknowledgedWrites, run_buyers
from proof.campaign import Campaign
from proof.durable_database import DurableDatabase, durable_database
from proof.load_clients import HttpClient, SqlClient
from tests.support.http import running_server
from tests.support.processes import gunicorn, is_running
from tests.support.sql_calls import create_product
from tests.support.waiting import wait_until

pytestmark = pytest.mark.slow

CLIENTS = {HttpClient: 12, SqlClient: 4}
RECOVERY_SECONDS = 5.0
"""seconds from the first connection that PostgreSQL accepts until buyers are served"""


@pytest.fixture
def database() -> Iterator[DurableDatabase]:
    with durable_database() as database:
        yield database


@pytest.fixture
def server(database: DurableDatabase) -> Iterator[str]:
    with running_server(database.app_url, database.log) as url:
        yield url


def find_backend(database: DurableDatabase, which: str, random: Random) -> int:
    """A random process of PostgreSQL whose row in pg_stat_activity satisfies `which`; waits for one."""

    def found() -> list[int]:
        with database.connect() as conn:
            return [
                pid
                for (pid,) in conn.execute(
                    f"select pid from pg_stat_activity where pid <> pg_backend_pid() and {which} order by pid"
                )
            ]

    wait_until(found, f"there is a process with {which}")
    pids = found()
    return random.choice(pids)


def kill(pid: int) -> None:
    assert pid > 1
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not is_running(pid), f"process {pid} is gone")


def kill_worker(database: DurableDatabase, random: Random) -> None:
    kill(gunicorn()[1][0])


def kill_server_backend(database: DurableDatabase, random: Random) -> None:
    kill(find_backend(database, "application_name like 'flashsale %'", random))


def kill_service_backend(database: DurableDatabase, random: Random) -> None:
    kill(find_backend(database, "usename = 'flashsale_app' and application_name = ''", random))


def kill_auxiliary(database: DurableDatabase, random: Random) -> None:
    kill(find_backend(database, "backend_type <> 'client backend'", random))


def kill_pg_cron(database: DurableDatabase, random: Random) -> None:
    kill(find_backend(database, "backend_type = 'pg_cron launcher'", random))


def kill_postmaster(database: DurableDatabase, random: Random) -> None:
    database.postgres.kill()
    database.postgres.wait()
    database.start()


KILLS: dict[Callable[[DurableDatabase, Random], None], tuple[str, int, int]] = {
    kill_server_backend: ("backends of the HTTP server", 1, 35),
    kill_service_backend: ("backends of services", 1, 15),
    kill_auxiliary: ("checkpointers, WAL writers and other PostgreSQL processes", 1, 15),
    kill_pg_cron: ("pg_cron launchers", 1, 15),
    kill_postmaster: ("postmasters", 1, 25),
    kill_worker: ("HTTP workers", 1, 25),
}
"""what each kills; how often in the small form and in the campaign"""


def test_acknowledged_writes_survive_every_kill(
    campaign: Campaign, database: DurableDatabase, server: str
) -> None:
    with database.connect() as conn:
        if not conn.execute("select 1 from pg_settings where name = 'cron.database_name'").fetchone():
            pytest.skip("pg_cron is not installed")
        products = [create_product(conn, stock) for stock in (*[1_000_000] * 3, 40)]
    kills = [kind for kind, (_, small, full) in KILLS.items() for _ in range(campaign.size(small, full))]
    campaign.random.shuffle(kills)
    writes, stopped = AcknowledgedWrites(), False
    slowest: Counter[str] = Counter()

    async def run_clients() -> None:
        await asyncio.gather(
            *(
                run_buyers(
                    lambda: stopped,
                    f"{client.__name__}-{number}",
                    client(server if client is HttpClient else database.app_url),
                    products,
                    writes,
                    Random(f"{campaign.seed} {client.__name__} {number}"),
                )
                for client, count in CLIENTS.items()
                for number in range(count)
            )
        )

    def wait_until_served(since: float, timeout: float) -> None:
        """Until clients of both kinds have an acknowledged write that began after `since`."""
        wait_until(
            lambda: load.done() or all(writes.last_began.get(client, 0) > since for client in CLIENTS),
            "buyers are served again",
            timeout,
        )
        if load.done():
            load.result()

    with ThreadPoolExecutor(1) as pool:
        load = pool.submit(asyncio.run, run_clients())
        try:
            wait_until_served(time.monotonic(), 30)
            for kill_process in kills:
                # At a random moment of some hundred commits.
                goal = writes.outcomes["acknowledged"] + campaign.random.randrange(20, 200)
                wait_until(lambda: load.done() or writes.outcomes["acknowledged"] >= goal, "buyers write", 60)  # noqa: B023
                kill_process(database, campaign.random)
                wait_until(database.accepts_connections, "PostgreSQL accepts connections", 60)
                accepting = time.monotonic()
                wait_until_served(accepting, campaign.size(4 * RECOVERY_SECONDS, RECOVERY_SECONDS))
                took = time.monotonic() - accepting
                slowest[KILLS[kill_process][0]] = max(slowest[KILLS[kill_process][0]], took)
        finally:
            stopped = True
        load.result(timeout=60)

    with database.connect() as conn:
        assert writes.violations(conn)[:20] == []
        wait_until(lambda: scheduler_is_alive(conn), "pg_cron is back")
    assert writes.outcomes["unknown"] > 0, "no kill met a step under way"
    for kind, times in Counter(kills).items():
        what = KILLS[kind][0]
        campaign.record(
            f"kill -9 of {what}, {times} times",
            f"all; served again within {slowest[what]:.1f} s",
            kills=times,
        )
    campaign.record(
        f"{writes.outcomes['acknowledged']:,} acknowledged writes, {writes.outcomes['unknown']:,} of unknown"
        f" outcome and {writes.outcomes['nothing done']:,} not done, compared with the tables",
        acknowledged_writes=writes.outcomes["acknowledged"],
    )


def scheduler_is_alive(conn: psycopg.Connection) -> bool:
    query = "select exists (select from pg_stat_activity where backend_type = 'pg_cron launcher')"
    return conn.execute(query).fetchone()[0]
