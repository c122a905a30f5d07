"""A long sale with an old snapshot open: as quick in its last minute as in its first, no error, no growth.

A backup or a forgotten psql keeps every dead row alive meanwhile. Buyers go through the whole flow at a
steady pace: paid, failed, paid before the order is there, or left to lapse; pg_cron's part is called often.
"""

import asyncio
import itertools
import os
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import psycopg
import pytest

from flashsale.local import processes
from proof.campaign import Campaign
from proof.durable_database import Durable, durable_database
from proof.load_clients import Answer, Connection, p99
from tests.support.http import running_server

pytestmark = pytest.mark.slow

BUYERS = 40
PACE = 0.1
"""seconds between one step of a buyer and the next: 400 requests a second"""
LAPSE = "15 seconds"
"""how long a hold and an order last, so that many lapse and are swept"""
WITHIN = 2.0
"""times the first minute's p99: what the last one's stays within"""
ROOM = 1.25
"""times what it was once warm: what a process may grow to"""


@dataclass
class Seen:
    """What buyers saw."""

    times: list[tuple[float, float]] = field(default_factory=list)
    """when a request was answered, and after how many seconds"""
    turned_away: Counter[str | None] = field(default_factory=Counter)
    """503s, by code"""

    def p99(self, since: float, until: float) -> float:
        return p99([seconds for at, seconds in self.times if since <= at < until])


async def buyer(
    url: str, products: list[int], who: str, delay: float, random: Random, until: float, seen: Seen
) -> None:
    async with Connection(url) as connection:
        due = time.monotonic() + delay

        async def step(
            method: str, path: str, expected: set[int], body: object = None, key: str | None = None
        ) -> Answer:
            nonlocal due
            due = max(due + PACE, time.monotonic())
            await asyncio.sleep(due - time.monotonic())
            began, told = time.monotonic(), []
            while True:
                answer = await connection.ask(method, path, body, key)
                seen.times.append((time.monotonic(), answer.seconds))
                told.append((answer.status, answer.code, round(answer.seconds, 2)))
                if answer.status != 503:
                    break
                seen.turned_away[answer.code] += 1
            assert answer.status in expected, (method, path, answer, time.monotonic() - began, told)
            return answer

        for turn in itertools.count():
            if time.monotonic() >= until:
                break
            name, product = f"{who}-{turn}", random.choice(products)
            what = random.choice(["paid"] * 5 + ["failed", "released", "hold lapses", "order lapses"])
            await step("GET", f"/api/products/{product}", {200})
            placed = await step(
                "POST",
                "/api/holds",
                {201},
                {"product_id": product, "qty": random.randint(1, 3)},
                f"hold-{name}",
            )
            hold = placed.json["hold_id"]
            if what == "released":
                await step("DELETE", f"/api/holds/{hold}", {204})
            elif what != "hold lapses":
                order = await step("POST", "/api/orders", {201}, {"hold_id": hold}, f"order-{name}")
                order_id = order.json["order_id"]
                await step("GET", f"/api/orders/{order_id}?hold_id={hold}", {200})
                if what != "order lapses":
                    event = {
                        "idempotency_key": f"pay-{name}",
                        "order_id": order_id,
                        "status": "success" if what == "paid" else what,
                    }
                    for _ in range(random.choice([1, 1, 2])):
                        await step("POST", "/api/payments/webhook", {200}, event)
            if random.random() < 0.02:
                event = {"idempotency_key": f"lost-{name}", "order_id": 10**12 + turn, "status": "failed"}
                await step("POST", "/api/payments/webhook", {202}, event)


async def sweep(url: str, until: float) -> None:
    """What pg_cron does every 5 seconds where its version can."""
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as conn:
        while time.monotonic() < until:
            await conn.execute("call flashsale.sweep()")
            await asyncio.sleep(min(5, max(0, until - time.monotonic())))


async def sample(shop: Durable, until: float, every: float, sizes: list[dict[str, Any]]) -> None:
    async with await psycopg.AsyncConnection.connect(shop.url, autocommit=True) as conn:
        while time.monotonic() < until:
            await asyncio.sleep(every)
            sizes.append(await size(shop, conn))


async def size(shop: Durable, conn: psycopg.AsyncConnection) -> dict[str, Any]:
    """What must not grow: memory of worker and backends, and tables that only hold what is open."""
    lanes = "select pid from pg_stat_activity where application_name like 'flashsale %'"
    backends = [pid for (pid,) in await (await conn.execute(lanes)).fetchall()]
    open_rows = (
        "select (select count(*) from flashsale_data.lapses), (select stored from flashsale_data.inbox),"
        " (select count(*) from flashsale_data.payments where result = 'stored'),"
        " (select count(*) from flashsale_data.stock),"
        " (select count(*) from pg_locks where locktype = 'advisory')"
    )
    lapses, inbox, stored, stock, locks = await (await conn.execute(open_rows)).fetchone()
    return {
        "worker": sum(private_memory(pid) for pid in workers()),
        "backends": max(private_memory(pid) for pid in backends),
        "connections": len(backends),
        "lapses": lapses,
        "inbox": inbox,
        "stored": stored,
        "stock": stock,
        "locks": locks,
    }


def workers() -> list[int]:
    """gunicorn and its workers, started by this process."""

    def parent(entry: Path) -> int:
        return int((entry / "stat").read_text().rpartition(")")[2].split()[1])

    (master,) = set(processes.with_arguments("gunicorn")).intersection(
        processes.find_processes(lambda entry: parent(entry) == os.getpid())
    )
    return [master, *processes.find_processes(lambda entry: parent(entry) == master)]


def private_memory(pid: int) -> int:
    """Bytes that are this process's own; shared buffers count for nobody."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return 1024 * sum(int(line.split()[1]) for line in lines if line.startswith("Private_"))


def test_a_long_sale_with_an_old_snapshot_open(campaign: Campaign) -> None:
    seconds, window = campaign.size((4, 1), (20 * 60, 60))
    seen, sizes = Seen(), []
    with durable_database() as shop, shop.connect() as conn, running_server(shop.app_url, shop.log) as url:
        conn.execute("select flashsale.change_settings(%s::interval, %s::interval)", (LAPSE, LAPSE))
        conn.execute("select flashsale.change_settings(p_inbox_keep => '10 seconds')")
        products = [
            conn.execute("select flashsale.create_product('Shoe', 10000000, 99)").fetchone()[0]
            for _ in range(4)
        ]
        asyncio.run(sale(shop, url, products, "warm", campaign.size(0.3, 20), Seen(), [], campaign))
        with shop.connect(autocommit=False) as old:
            old.execute("set transaction isolation level repeatable read")
            old.execute("select count(*) from flashsale_data.stock")
            began = time.monotonic()
            asyncio.run(sale(shop, url, products, "long", seconds, seen, sizes, campaign))
            ended = began + seconds
            old.rollback()
        time.sleep(campaign.size(0, 16))  # the last holds and orders lapse, the inbox's time is up
        conn.execute("call flashsale.sweep()")
        assert conn.execute("select * from flashsale.audit()").fetchall() == []
        log = shop.log.read_text()
    assert "Traceback" not in log and "[ERROR]" not in log, log[-3000:]
    first, last = seen.p99(began, began + window), seen.p99(ended - window, ended)
    early, late = sizes[len(sizes) // 10], sizes[-1]
    assert late["stock"] == len(products)
    if campaign.full:
        assert not seen.turned_away
        assert last < WITHIN * first
        assert late["worker"] < ROOM * early["worker"]
        assert late["backends"] < ROOM * early["backends"] + 4 * 2**20
        assert late["connections"] <= 13
        assert late["lapses"] < 4 * max(early["lapses"], 100)
        assert late["inbox"] == late["stored"] < 4 * max(early["inbox"], 100)
    mega = 2**20
    campaign.tried(
        f"{seconds / 60:.0f} minutes of the whole flow with an old snapshot open,"
        f" {len(seen.times):,} requests",
        f"no error; p99 {first * 1000:.1f} ms in the first minute, {last * 1000:.1f} ms in the last;"
        f" worker {early['worker'] // mega} MB, then {late['worker'] // mega} MB;"
        f" largest backend {early['backends'] // mega} MB, then {late['backends'] // mega} MB;"
        f" lapses {early['lapses']} rows, then {late['lapses']};"
        f" inbox {early['inbox']}, then {late['inbox']}",
    )


async def sale(
    shop: Durable,
    url: str,
    products: list[int],
    name: str,
    seconds: float,
    seen: Seen,
    sizes: list[dict[str, Any]],
    campaign: Campaign,
) -> None:
    until = time.monotonic() + seconds
    await asyncio.gather(
        sweep(shop.url, until),
        sample(shop, until, seconds / 40, sizes),
        *(
            buyer(
                url,
                products,
                f"{name}-{n}",
                PACE * n / BUYERS,
                Random(f"{campaign.seed} {name} {n}"),
                until,
                seen,
            )
            for n in range(BUYERS)
        ),
    )
