"""Three machines, of which the primary fails under load: every acknowledged write is there, none twice.

PostgreSQL and Patroni run as ops/patroni/ has them, with the shortest times that Patroni takes. Buyers call
over HTTP and in SQL, as in test_crash.py; a service follows the ledger. All connect by one URL with three
hosts. A failed machine comes back, and has to have rejoined as a standby before the next failure.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Any

import psycopg
import pytest

from api.database.connection import disconnect_after
from api.database.hosts import PrimaryConnection
from flashsale.database.migrations import migrate
from flashsale.database.seed import APP_ROLE, create_app_role
from proof.acknowledged_writes import AcknowledgedWrites, run_buyers
from proof.campaign import Campaign
from proof.load_clients import HttpClient, SqlClient
from tests.support import servers
from tests.support.database import needs_pg_cron
from tests.support.http import running_server
from tests.support.patroni import PASSWORD, QUICKEST, Node, Shop, running_nodes
from tests.support.sale_steps import audit
from tests.support.sql_calls import create_product
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.slow, servers.needs("etcd", "patroni"), needs_pg_cron]

CLIENTS = {HttpClient: 8, SqlClient: 3}
CALL_SECONDS = 3.0
"""seconds after which a client of SQL gives up a call"""
RECOVERY_SECONDS = 6.0
"""seconds for the election, the promotion and the clients' connections, after Patroni's own time"""
OWN_SECONDS = QUICKEST["ttl"] + QUICKEST["loop_wait"]
"""seconds until Patroni replaces a primary that it does not hear of"""
COLUMNS = "event_id, kind, product_id, hold_id, order_id, payment_key, available_delta"


@pytest.fixture(scope="module")
def shop() -> Iterator[Shop]:
    """With an empty database of the sale."""
    with running_nodes(QUICKEST, with_links=True) as shop:
        with psycopg.connect(shop.url("postgres", "postgres"), autocommit=True) as conn:
            conn.execute("create database flashsale")
        migrate(url(shop), say=lambda _: None)
        with connect(shop) as conn:
            create_app_role(conn)
            conn.execute(f"alter role {APP_ROLE} password '{PASSWORD}'")
        yield shop


def url(shop: Shop, user: str = "postgres") -> str:
    return shop.url(user, "flashsale") + "&connect_timeout=2"


def connect(shop: Shop) -> psycopg.Connection:
    return psycopg.connect(url(shop), autocommit=True)


def crash(shop: Shop, old: Node) -> None:
    old.kill_postgresql()


def lose_power(shop: Shop, old: Node) -> None:
    old.kill()


def cut_off(shop: Shop, old: Node) -> None:
    old.cut()


def freeze(shop: Shop, old: Node) -> None:
    old.freeze()


def switch_over(shop: Shop, old: Node) -> None:
    old.patronictl("switchover", "--force", "--primary", old.name)


FAILURES: dict[Callable[[Shop, Node], None], tuple[str, int, int, Callable[[Node], None]]] = {
    crash: ("primaries killed with kill -9", 1, 5, lambda old: None),
    lose_power: ("primaries killed with their Patroni", 0, 3, Node.start),
    cut_off: ("primaries cut off: nothing answers, nothing refuses", 1, 4, Node.heal),
    freeze: ("primaries stopped with their Patroni, and continued when replaced", 0, 2, Node.thaw),
    switch_over: ("switch-overs", 1, 6, lambda old: None),
}
"""what each does; how often in the small form and in the campaign; how the machine comes back"""


def test_acknowledged_writes_survive_every_failover(campaign: Campaign, shop: Shop, tmp_path: Path) -> None:
    failures = [
        kind for kind, (_, small, full, _) in FAILURES.items() for _ in range(campaign.size(small, full))
    ]
    campaign.random.shuffle(failures)
    with connect(shop) as conn:
        products = [create_product(conn, stock) for stock in (*[1_000_000] * 3, 40)]
    writes, reader, stopped = AcknowledgedWrites(), LedgerReader(url(shop)), False
    slowest: Counter[str] = Counter()

    async def run_clients(server: str) -> None:
        clients: list[tuple[str, HttpClient | SqlClient]] = [
            (f"{kind.__name__}-{number}", HttpClient(server) if kind is HttpClient
             else SqlClient(url(shop, APP_ROLE), timeout=CALL_SECONDS))
            for kind, count in CLIENTS.items() for number in range(count)
        ]  # fmt: skip
        reading = asyncio.ensure_future(reader.run())
        await asyncio.gather(
            *(
                run_buyers(lambda: stopped, name, client, products, writes, Random(f"{campaign.seed} {name}"))
                for name, client in clients
            )
        )
        reading.cancel()
        with suppress(asyncio.CancelledError):
            await reading

    def wait_until_served(since: float, timeout: float) -> None:
        """Until clients of both kinds have an acknowledged write that began after `since`."""
        wait_until(
            lambda: load.done() or all(writes.last_began.get(client, 0) > since for client in CLIENTS),
            "buyers are served again",
            timeout,
        )
        if load.done():
            load.result()

    with (
        running_server(url(shop, APP_ROLE), tmp_path / "gunicorn.log") as server,
        ThreadPoolExecutor(1) as pool,
    ):
        load = pool.submit(asyncio.run, run_clients(server))
        try:
            wait_until_served(time.monotonic(), 30)
            for fail in failures:
                what, *_, come_back = FAILURES[fail]
                goal = writes.outcomes["acknowledged"] + campaign.random.randrange(20, 200)
                wait_until(lambda: load.done() or writes.outcomes["acknowledged"] >= goal, "buyers write", 60)  # noqa: B023
                old = shop.primary()
                failed = time.monotonic()
                fail(shop, old)
                wait_until(lambda: successor(shop, old), f"a standby replaces {old.name} ({what})", 120)  # noqa: B023
                if fail is cut_off:  # it has stopped by itself, before it was replaced
                    assert not accepts_writes(old), old.name
                replaced = time.monotonic()
                come_back(old)
                wait_until_served(replaced, campaign.size(10 * RECOVERY_SECONDS, RECOVERY_SECONDS))
                slowest[what] = max(slowest[what], writes.longest_gap(failed))
                shop.wait_until_whole()
                assert shop.with_pg_cron() == [shop.primary().name]
        finally:
            stopped = True
            for node in shop.nodes:
                node.thaw()
                node.heal()
        load.result(timeout=120)

    with connect(shop) as conn:
        assert writes.violations(conn)[:20] == []
        # Sweeps append events after the reader has ended.
        query = f"select {COLUMNS} from flashsale_data.events where event_id <= %s order by 1"
        assert reader.events == conn.execute(query, (reader.events[-1][0],)).fetchall()
        assert audit(conn) == []
    assert writes.outcomes["unknown"] > 0, "no failure met a step under way"
    for what, seconds in slowest.items():
        assert seconds <= OWN_SECONDS + campaign.size(10 * RECOVERY_SECONDS, RECOVERY_SECONDS), (
            what,
            seconds,
        )
    for kind, times in Counter(failures).items():
        what = FAILURES[kind][0]
        campaign.record(
            f"{what}, {times} times",
            f"all; no buyer served for at most {slowest[what]:.1f} s",
            failovers=times,
        )
    campaign.record(
        f"{writes.outcomes['acknowledged']:,} acknowledged writes, {writes.outcomes['unknown']:,} of unknown"
        f" outcome and {writes.outcomes['not done']:,} not done, compared with the tables;"
        f" {len(reader.events):,} events, read once each, in order",
        acknowledged_writes=writes.outcomes["acknowledged"],
        figures=f"all; at most {max(slowest.values()):.0f} s without service (ttl {QUICKEST['ttl']} s)",
    )


def successor(shop: Shop, old: Node) -> bool:
    return any(node.is_primary() for node in shop.nodes if node is not old)


def accepts_writes(node: Node) -> bool:
    """Whether PostgreSQL accepts writes there, asked past the links."""
    try:
        with psycopg.connect(node.direct_url("flashsale"), connect_timeout=5) as conn:
            return not conn.execute("select pg_is_in_recovery()").fetchone()[0]
    except psycopg.OperationalError:
        return False


class LedgerReader:
    """A service that follows the ledger by read_events(), and keeps every event that it was given."""

    def __init__(self, database_url: str) -> None:
        self._url = database_url
        self.events: list[tuple[Any, ...]] = []

    async def run(self) -> None:
        """Until it is cancelled; then what is left is read."""
        try:
            while True:
                await self._follow()
        except asyncio.CancelledError:
            async with await PrimaryConnection.connect(self._url, autocommit=True) as conn:
                while await self._read(conn):
                    pass
            raise

    async def _follow(self) -> None:
        try:
            async with await PrimaryConnection.connect(self._url, autocommit=True) as conn:
                while True:
                    timer = disconnect_after(conn, CALL_SECONDS)
                    try:
                        if not await self._read(conn):
                            await asyncio.sleep(0.05)
                    finally:
                        timer.cancel()
        except psycopg.OperationalError:
            await asyncio.sleep(0.1)

    async def _read(self, conn: psycopg.AsyncConnection[Any]) -> bool:
        after = self.events[-1][0] if self.events else 0
        cursor = await conn.execute(f"select {COLUMNS} from flashsale.read_events(%s, 1000)", (after,))
        page = await cursor.fetchall()
        self.events += page
        return bool(page)
