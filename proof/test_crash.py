"""Processes die by kill -9 under load: every acknowledged write is there, none twice, and service resumes.

Buyers ask over HTTP and in SQL, keep a journal, and repeat what nobody knows the outcome of, with its key.
The server's master restarts its workers, PostgreSQL its backends; a killed postmaster is started again by
the test, as a supervisor would.
"""

import asyncio
import os
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import Random

import psycopg
import pytest

from flashsale.local import processes
from proof.campaign import Campaign
from proof.durable_database import Durable, durable_database
from proof.journal import Journal, shop_until
from proof.load_clients import InSql, OverHttp
from tests.support.http import running_server
from tests.support.waiting import wait_until

pytestmark = pytest.mark.slow

BUYERS = {OverHttp: 12, InSql: 4}
RESUMES = 5.0
"""seconds from the first connection that PostgreSQL accepts, or the death of a worker, to served buyers"""


@pytest.fixture
def shop() -> Iterator[Durable]:
    with durable_database() as made:
        yield made


@pytest.fixture
def server(shop: Durable) -> Iterator[str]:
    with running_server(shop.app_url, shop.log) as url:
        yield url


def children(parent: int, *arguments: str) -> list[int]:
    def is_child(entry: Path) -> bool:
        return int((entry / "stat").read_text().rpartition(")")[2].split()[1]) == parent

    found = processes.find_processes(is_child)
    return sorted(set(found).intersection(processes.with_arguments(*arguments))) if arguments else found


def a_worker() -> int:
    (master,) = children(os.getpid(), "gunicorn")
    wait_until(lambda: children(master), "gunicorn has a worker")
    return children(master)[0]


def a_process_of_postgresql(shop: Durable, which: str, random: Random) -> int:
    """One at random whose row in pg_stat_activity satisfies `which`; waits until there is one."""

    def found() -> list[int]:
        with shop.connect() as conn:
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


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def kill_worker(shop: Durable, random: Random) -> None:
    kill(a_worker())


def kill_lane(shop: Durable, random: Random) -> None:
    kill(a_process_of_postgresql(shop, "application_name like 'flashsale %'", random))


def kill_service(shop: Durable, random: Random) -> None:
    kill(a_process_of_postgresql(shop, "usename = 'flashsale_app' and application_name = ''", random))


def kill_auxiliary(shop: Durable, random: Random) -> None:
    kill(a_process_of_postgresql(shop, "backend_type <> 'client backend'", random))


def kill_launcher(shop: Durable, random: Random) -> None:
    kill(a_process_of_postgresql(shop, "backend_type = 'pg_cron launcher'", random))


def kill_postmaster(shop: Durable, random: Random) -> None:
    shop.postgres.kill()
    shop.postgres.wait()
    shop.start()


KILLS: dict[Callable[[Durable, Random], None], tuple[str, int, int]] = {
    kill_lane: ("backends of the HTTP server", 1, 35),
    kill_service: ("backends of services", 1, 15),
    kill_auxiliary: ("checkpointers, WAL writers and other PostgreSQL processes", 1, 15),
    kill_launcher: ("pg_cron launchers", 1, 15),
    kill_postmaster: ("postmasters", 1, 25),
    kill_worker: ("HTTP workers", 1, 25),
}
"""what they kill; how often in the small form and in the full one"""


def test_what_was_acknowledged_outlives_every_kill(campaign: Campaign, shop: Durable, server: str) -> None:
    with shop.connect() as conn:
        if not conn.execute("select 1 from pg_settings where name = 'cron.database_name'").fetchone():
            pytest.skip("pg_cron is not installed")
        products = [
            conn.execute("select flashsale.create_product('Shoe', %s, 99)", (stock,)).fetchone()[0]
            for stock in (1_000_000, 1_000_000, 1_000_000, 40)
        ]
    kills = [kind for kind, (_, small, full) in KILLS.items() for _ in range(campaign.size(small, full))]
    campaign.random.shuffle(kills)
    journal, stopped = Journal(), False
    slowest: Counter[str] = Counter()

    async def shop_around() -> None:
        await asyncio.gather(
            *(
                shop_until(
                    lambda: stopped,
                    f"{way.__name__}-{number}",
                    way(server if way is OverHttp else shop.app_url),
                    products,
                    journal,
                    Random(f"{campaign.seed} {way.__name__} {number}"),
                )
                for way, count in BUYERS.items()
                for number in range(count)
            )
        )

    def wait_until_served(since: float, timeout: float) -> None:
        """Buyers of both kinds got what they began to ask for later than `since`."""
        wait_until(
            lambda: load.done() or all(journal.last_began.get(way, 0) > since for way in BUYERS),
            "buyers are served again",
            timeout,
        )
        if load.done():
            load.result()

    with ThreadPoolExecutor(1) as pool:
        load = pool.submit(asyncio.run, shop_around())
        try:
            wait_until_served(time.monotonic(), 30)
            for one in kills:
                # In the thick of it: at any moment of some hundred commits.
                enough = journal.count["acknowledged"] + campaign.random.randrange(20, 200)
                wait_until(lambda: load.done() or journal.count["acknowledged"] >= enough, "they buy", 60)  # noqa: B023
                one(shop, campaign.random)
                wait_until(shop.accepts, "PostgreSQL accepts connections", 60)
                accepting = time.monotonic()
                wait_until_served(accepting, campaign.size(4 * RESUMES, RESUMES))
                took = time.monotonic() - accepting
                slowest[KILLS[one][0]] = max(slowest[KILLS[one][0]], took)
        finally:
            stopped = True
        load.result(timeout=60)

    with shop.connect() as conn:
        assert journal.faults(conn)[:20] == []
        wait_until(lambda: scheduler_is_alive(conn), "pg_cron is back")
    assert journal.count["unknown"] > 0, "no kill met a step under way: it shows nothing"
    for kind, times in Counter(kills).items():
        what = KILLS[kind][0]
        campaign.tried(f"kill -9 of {what}, {times} times", f"all; served again within {slowest[what]:.1f} s")
    campaign.tried(
        f"{journal.count['acknowledged']:,} acknowledged writes, {journal.count['unknown']:,} of unknown"
        f" outcome and {journal.count['nothing done']:,} refused undone, held against the tables"
    )


def scheduler_is_alive(conn: psycopg.Connection) -> bool:
    query = "select exists (select from pg_stat_activity where backend_type = 'pg_cron launcher')"
    return conn.execute(query).fetchone()[0]
