"""A long sale with an old snapshot open: as fast in its last minute as in its first, no error, no growth.

The snapshot of a backup or a forgotten psql keeps every dead row. Buyers run the whole flow at a steady pace:
paid, failed, stored webhooks, or left to lapse; the sweep is called often.
"""

import asyncio
import itertools
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import psycopg
import pytest

from proof.campaign import Campaign
from proof.durable_database import DurableDatabase, durable_database
from proof.load_clients import Connection, p99
from proof.raw_http import Response
from tests.support.http import running_server
from tests.support.processes import gunicorn
from tests.support.sql_calls import create_product

pytestmark = pytest.mark.slow

BUYERS = 40
PAUSE_SECONDS = 0.1
"""seconds between one step of a buyer and the next: 400 requests a second"""
LAPSE = "15 seconds"
"""how long a hold and an order last, so that many lapse and are swept"""
MAX_P99_RATIO = 2.0
"""times the p99 of the first minute: that of the last"""
MAX_MEMORY_RATIO = 1.25
"""times the memory once warm: that at the end"""


@dataclass
class Observed:
    """By all buyers."""

    times: list[tuple[float, float]] = field(default_factory=list)
    """when a response came, and after how many seconds"""
    unavailable: Counter[str | None] = field(default_factory=Counter)
    """503s, by code"""

    def p99(self, since: float, until: float) -> float:
        return p99([seconds for at, seconds in self.times if since <= at < until])


async def buyer(
    url: str, products: list[int], name: str, delay: float, random: Random, until: float, observed: Observed
) -> None:
    async with Connection(url) as connection:
        due = time.monotonic() + delay

        async def step(
            method: str, path: str, expected: set[int], body: object = None, key: str | None = None
        ) -> Response:
            nonlocal due
            due = max(due + PAUSE_SECONDS, time.monotonic())
            await asyncio.sleep(due - time.monotonic())
            began, responses = time.monotonic(), []
            while True:
                response = await connection.request(method, path, body, key)
                observed.times.append((time.monotonic(), response.seconds))
                responses.append((response.status, response.code, round(response.seconds, 2)))
                if response.status != 503:
                    break
                observed.unavailable[response.code] += 1
            assert response.status in expected, (method, path, response, time.monotonic() - began, responses)
            return response

        for turn in itertools.count():
            if time.monotonic() >= until:
                break
            key, product = f"{name}-{turn}", random.choice(products)
            what = random.choice(["paid"] * 5 + ["failed", "released", "hold lapses", "order lapses"])
            await step("GET", f"/api/products/{product}", {200})
            wanted = {"product_id": product, "qty": random.randint(1, 3)}
            placed = await step("POST", "/api/holds", {201}, wanted, f"hold-{key}")
            hold = placed.json["hold_id"]
            if what == "released":
                await step("DELETE", f"/api/holds/{hold}", {204})
            elif what != "hold lapses":
                order = await step("POST", "/api/orders", {201}, {"hold_id": hold}, f"order-{key}")
                order_id = order.json["order_id"]
                await step("GET", f"/api/orders/{order_id}?hold_id={hold}", {200})
                if what != "order lapses":
                    event = {
                        "idempotency_key": f"pay-{key}",
                        "order_id": order_id,
                        "status": "success" if what == "paid" else what,
                    }
                    for _ in range(random.choice([1, 1, 2])):
                        await step("POST", "/api/payments/webhook", {200}, event)
            if random.random() < 0.02:
                event = {"idempotency_key": f"lost-{key}", "order_id": 10**12 + turn, "status": "failed"}
                await step("POST", "/api/payments/webhook", {202}, event)


async def sweep(url: str, until: float) -> None:
    """The job that pg_cron runs every 5 seconds."""
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as conn:
        while time.monotonic() < until:
            await conn.execute("call flashsale.sweep()")
            await asyncio.sleep(min(5, max(0, until - time.monotonic())))


async def sample(database: DurableDatabase, until: float, every: float, sizes: list[dict[str, Any]]) -> None:
    async with await psycopg.AsyncConnection.connect(database.url, autocommit=True) as conn:
        while time.monotonic() < until:
            await asyncio.sleep(every)
            sizes.append(await size(database, conn))


async def size(database: DurableDatabase, conn: psycopg.AsyncConnection) -> dict[str, Any]:
    """What must not grow: memory of worker and backends, and tables that only have open rows."""
    master, workers = gunicorn()
    backends_of_server = "select pid from pg_stat_activity where application_name like 'flashsale %'"
    backends = [pid for (pid,) in await (await conn.execute(backends_of_server)).fetchall()]
    open_rows = (
        "select (select count(*) from flashsale_data.lapses), (select stored from flashsale_data.inbox),"
        " (select count(*) from flashsale_data.payments where result = 'stored'),"
        " (select count(*) from flashsale_data.stock),"
        " (select count(*) from pg_locks where locktype = 'advisory')"
    )
    lapses, inbox, stored, stock, locks = await (await conn.execute(open_rows)).fetchone()
    return {
        "worker": sum(private_memory(pid) for pid in [master, *workers]),
        "backends": max(private_memory(pid) for pid in backends),
        "connections": len(backends),
        "lapses": lapses,
        "inbox": inbox,
        "stored": stored,
        "stock": stock,
        "locks": locks,
    }


def private_memory(pid: int) -> int:
    """Bytes of private memory; shared buffers are not counted."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return 1024 * sum(int(line.split()[1]) for line in lines if line.startswith("Private_"))


def test_a_long_sale_with_an_old_snapshot_open(campaign: Campaign) -> None:
    seconds, window = campaign.size((4, 1), (10 * 60, 60))
    observed, sizes = Observed(), []
    with (
        durable_database() as database,
        database.connect() as conn,
        running_server(database.app_url, database.log) as url,
    ):
        conn.execute("select flashsale.change_settings(%s::interval, %s::interval)", (LAPSE, LAPSE))
        conn.execute("select flashsale.change_settings(p_inbox_keep => '10 seconds')")
        products = [create_product(conn, 10000000) for _ in range(4)]
        asyncio.run(sale(database, url, products, "warm", campaign.size(0.3, 20), Observed(), [], campaign))
        with database.connect(autocommit=False) as old:
            old.execute("set transaction isolation level repeatable read")
            old.execute("select count(*) from flashsale_data.stock")
            began = time.monotonic()
            asyncio.run(sale(database, url, products, "long", seconds, observed, sizes, campaign))
            ended = began + seconds
            old.rollback()
        time.sleep(campaign.size(0, 16))  # the last holds, orders and waits lapse
        conn.execute("call flashsale.sweep()")
        assert conn.execute("select * from flashsale.audit()").fetchall() == []
        log = database.log.read_text()
    assert "Traceback" not in log and "[ERROR]" not in log, log[-3000:]
    first, last = observed.p99(began, began + window), observed.p99(ended - window, ended)
    early, late = sizes[len(sizes) // 10], sizes[-1]
    assert late["stock"] == len(products)
    if campaign.full:
        assert not observed.unavailable
        assert last < MAX_P99_RATIO * first
        assert late["worker"] < MAX_MEMORY_RATIO * early["worker"]
        assert late["backends"] < MAX_MEMORY_RATIO * early["backends"] + 4 * 2**20
        assert late["connections"] <= 13
        assert late["lapses"] < 4 * max(early["lapses"], 100)
        assert late["inbox"] == late["stored"] < 4 * max(early["inbox"], 100)
    megabyte = 2**20
    campaign.record(
        f"{seconds / 60:.0f} minutes of the whole flow with an old snapshot open,"
        f" {len(observed.times):,} requests",
        f"no error; p99 {first * 1000:.1f} ms in the first minute, {last * 1000:.1f} ms in the last;"
        f" worker {early['worker'] // megabyte} MB, then {late['worker'] // megabyte} MB;"
        f" largest backend {early['backends'] // megabyte} MB, then {late['backends'] // megabyte} MB;"
        f" lapses {early['lapses']} rows, then {late['lapses']};"
        f" inbox {early['inbox']}, then {late['inbox']}",
        figures=f"p99 {first * 1000:.1f} ms, then {last * 1000:.1f}",
        requests=len(observed.times),
    )


async def sale(
    database: DurableDatabase,
    url: str,
    products: list[int],
    name: str,
    seconds: float,
    observed: Observed,
    sizes: list[dict[str, Any]],
    campaign: Campaign,
) -> None:
    until = time.monotonic() + seconds
    await asyncio.gather(
        sweep(database.url, until),
        sample(database, until, seconds / 40, sizes),
        *(
            buyer(
                url,
                products,
                f"{name}-{n}",
                PAUSE_SECONDS * n / BUYERS,
                Random(f"{campaign.seed} {name} {n}"),
                until,
                observed,
            )
            for n in range(BUYERS)
        ),
    )
