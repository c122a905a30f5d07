"""`flashsale shard move`, while its slots are sold."""

import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
from click.testing import Result

from flashsale.shards import moving
from flashsale.shards.databases import databases
from tests.shards.served.shop import NAMES, SLOTS, Shop
from tests.shards.served.test_routing import hold, order, pay
from tests.support import ROOT
from tests.support.sale_steps import place_many
from tests.support.sql_calls import row, value
from tests.support.waiting import wait_until

pytestmark = pytest.mark.slow


class Buyers:
    """Buy units of products, order and pay some of them, until they are stopped; they know what they got."""

    def __init__(self, client: httpx.Client, products: list[int]) -> None:
        self._client = client
        self._products = products
        self._is_stopped = threading.Event()
        self.holds: list[tuple[int, int]] = []
        self.orders: list[tuple[int, int, bool]] = []
        self.refused: list[tuple[int, str]] = []

    def buy(self, number: int) -> None:
        while not self._is_stopped.is_set():
            for product in self._products:
                self._buy_one(product, paid=number % 2 == 0)

    def _buy_one(self, product: int, *, paid: bool) -> None:
        hold_id = self._ask(lambda: hold(self._client, product))
        if hold_id is None:
            return
        hold_id = hold_id["hold_id"]
        self.holds.append((hold_id, product))
        made = self._ask(lambda: self._client.post("/api/orders", json={"hold_id": hold_id}))
        if made is None:
            return
        order_id = made["order_id"]
        is_paid = paid and self._ask(lambda: pay(self._client, order_id, f"pay-{order_id}")) is not None
        self.orders.append((order_id, hold_id, is_paid))

    def _ask(self, send: Callable[[], httpx.Response]) -> Any:
        response = send()
        if response.status_code in (200, 201):
            return response.json()
        self.refused.append((response.status_code, response.json()["code"]))
        return None

    def stop(self) -> None:
        self._is_stopped.set()

    def check(self) -> None:
        """All that was acknowledged is there."""
        for hold_id, product in self.holds:
            assert self._client.get(f"/api/holds/{hold_id}").json()["product_id"] == product
        for order_id, hold_id, is_paid in self.orders:
            shown = self._client.get(f"/api/orders/{order_id}", params={"hold_id": hold_id}).json()
            assert shown["status"] == ("paid" if is_paid else "pending_payment"), shown


@contextmanager
def buying(client: httpx.Client, *products: int, threads: int = 4) -> Iterator[Buyers]:
    buyers = Buyers(client, list(products))
    with ThreadPoolExecutor(threads) as pool:
        running = [pool.submit(buyers.buy, number) for number in range(threads)]
        try:
            wait_until(lambda: len(buyers.orders) >= threads, "the sale has begun")
            yield buyers
        finally:
            buyers.stop()
        for each in running:
            each.result()


def test_a_slot_moves_while_it_is_sold(
    shop: Shop, client: httpx.Client, flashsale: Callable[..., Result]
) -> None:
    """Checks 9 and 11: the server has the old map when the slot arrives."""
    moved, other, stays = shop.product(2, 10_000), shop.product(2, 10_000), shop.product(0, 10_000)
    with buying(client, moved, other, stays) as buyers:
        result = flashsale("shard", "move", 2, "--to", NAMES["a"], "--json")
        assert result.exit_code == 0, result.output
        (found,) = json.loads(result.stdout)
        assert (found["slot"], found["source"], found["target"]) == (2, NAMES["b"], NAMES["a"])
        assert found["stood_still"] < 2
        count = len(buyers.orders)
        wait_until(lambda: len(buyers.orders) > count + 20, "the sale goes on")
        result = flashsale("shard", "move", "2", "--to", NAMES["b"])
        assert result.exit_code == 0, result.output
        assert "it stood still for" in result.stdout
    assert {status for status, _ in buyers.refused} <= {503}, buyers.refused
    assert {code for _, code in buyers.refused} <= {"busy"}, "nothing is unknown, not found or lost"
    assert len(buyers.refused) <= 4 * 2, "a buyer meets it once at most"
    buyers.check()
    shop.check()
    assert shop.count("stock") == {"a": 1, "b": 2}
    sold = sum(product == moved for _, product in buyers.holds)
    units = row(shop.b, "select * from flashsale.stock where product_id = %s", moved)
    assert units.total_stock == 10_000
    assert units.held + units.awaiting + units.paid == sold


def test_a_slot_of_100_000_holds_stands_still_for_less_than_two_seconds(
    shop: Shop, flashsale: Callable[..., Result]
) -> None:
    product = shop.product(1, 200_000)
    for _ in range(100):
        place_many(shop.a, product, 1000)
    result = flashsale("shard", "move", "1", "--to", NAMES["b"], "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)[0]["stood_still"] < 2
    assert shop.count("holds") == {"a": 0, "b": 100_000}
    shop.check()


def test_order_ids_after_a_move_never_repeat(
    shop: Shop, client: httpx.Client, flashsale: Callable[..., Result]
) -> None:
    """Check 12."""
    product, others = shop.product(3, 1000), shop.product(0, 1000)
    ids = [order(client, product)[0] for _ in range(5)]
    early = value(shop.b, "select flashsale.next_order_id(%s)", product)
    # The other shard has drawn more, or fewer: neither may lead to an id again.
    for shard, _ in (("a", 3), ("b", 7), ("a", 1)):
        ids += [order(client, others)[0] for _ in range(3)]
        assert flashsale("shard", "move", 3, "--to", NAMES[shard]).exit_code == 0
        ids += [order(client, product)[0] for _ in range(3)]
    assert len(set(ids)) == len(ids)
    assert early in ids
    shop.check()


def test_an_early_webhook_that_was_stored_before_a_move_is_applied_after_it(
    shop: Shop, client: httpx.Client, flashsale: Callable[..., Result]
) -> None:
    product = shop.product(3)
    order(client, product)
    coming = value(shop.b, "select flashsale.next_order_id(%s)", product)
    assert pay(client, coming, "early").status_code == 202
    assert flashsale("shard", "move", 3, "--to", NAMES["a"]).exit_code == 0
    assert [value(shop[shard], "select stored from flashsale_data.inbox") for shard in NAMES] == [1, 0]
    assert pay(client, coming, "early").headers["Idempotency-Replayed"] == "true"
    order_id, hold_id = order(client, product)
    assert order_id == coming
    shown = client.get(f"/api/orders/{order_id}", params={"hold_id": hold_id})
    assert shown.json()["status"] == "paid"
    shop.check()


def test_a_key_of_another_slot_does_not_hinder_a_move(
    shop: Shop, client: httpx.Client, flashsale: Callable[..., Result]
) -> None:
    """Check 8: both slots then share a shard."""
    product, moved = shop.product(0), shop.product(2)
    first, second = (hold(client, each, key="cart").json()["hold_id"] for each in (product, moved))
    assert flashsale("shard", "move", 2, "--to", NAMES["a"]).exit_code == 0
    assert hold(client, product, key="cart").json()["hold_id"] == first
    assert hold(client, moved, key="cart").json()["hold_id"] == second


class Killed(BaseException):
    """The process has ended here."""


class Watched:
    """Connections that end the process before or after their nth statement."""

    def __init__(self, statement: int, *, after: bool) -> None:
        self._statement = statement
        self._after = after
        self.count = 0

    def connect(self, command: str, url: str | None = None) -> psycopg.Connection:
        conn = real_connect(command, url)
        execute, cursor = conn.execute, conn.cursor
        watched = self

        def counted(*arguments: Any, **options: Any) -> Any:
            watched.step(before=True)
            found = execute(*arguments, **options)
            watched.step(before=False)
            return found

        def counting_cursor(*arguments: Any, **options: Any) -> Any:
            watched.step(before=True)
            return cursor(*arguments, **options)

        conn.execute, conn.cursor = counted, counting_cursor  # type: ignore[method-assign,assignment]
        return conn

    def step(self, *, before: bool) -> None:
        if before:
            self.count += 1
        if self.count == self._statement and before != self._after:
            raise Killed


real_connect = moving.connect


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_a_move_that_is_killed_at_any_statement_is_resumed(
    shop: Shop, client: httpx.Client, monkeypatch: pytest.MonkeyPatch, after: bool
) -> None:
    """Check 10: at no time two owners; nothing is lost or doubled."""
    monkeypatch.setenv("FLASHSALE_DATABASE_URLS", shop.urls())
    among = databases()
    product = shop.product(2, 1000)
    expected = [order(client, product) for _ in range(3)]
    statement, kills = 0, 0
    source, target = "b", "a"
    while True:
        statement += 1
        watched = Watched(statement, after=after)
        monkeypatch.setattr(moving, "connect", watched.connect)
        to = next(each for each in among if each.name == NAMES[target])
        try:
            steps = moving.plan([2], to, among)
            for step in steps:
                moving.move(step, to, print)
            moving.clear([2], among)
        except Killed:
            kills += 1
        monkeypatch.setattr(moving, "connect", real_connect)
        assert len(shop.owners(2)) <= 1
        for step in moving.plan([2], to, among):
            moving.move(step, to, print)
        moving.clear([2], among)
        assert shop.owners(2) == [target]
        shop.check()
        expected.append(order(client, product))
        source, target = target, source
        if watched.count < statement:
            break
    assert kills >= 8, "each step was interrupted"
    found = sorted(shop.ids("select order_id from flashsale_data.orders"))
    assert found == sorted(order_id for order_id, _ in expected)
    assert sorted(shop.ids("select hold_id from flashsale_data.holds")) == sorted(of for _, of in expected)


def test_a_process_that_is_killed_in_a_move_leaves_what_the_next_one_finishes(
    shop: Shop, client: httpx.Client, flashsale: Callable[..., Result]
) -> None:
    product, stays = shop.product(2, 100_000), shop.product(1, 100_000)
    for _ in range(10):
        place_many(shop.b, product, 1000)
    environment = {"PATH": "/usr/bin:/bin", "FLASHSALE_DATABASE_URLS": shop.urls()}
    with buying(client, product, stays, threads=2) as buyers:
        target = "a"
        for tenths in range(6):
            command = [sys.executable, "-m", "flashsale", "shard", "move", "2", "--to", NAMES[target]]
            with subprocess.Popen(command, cwd=ROOT, env=environment) as mover:
                wait_until(
                    lambda: mover.poll() is not None or is_moving(shop), "the move has begun", timeout=60
                )
                time.sleep(tenths / 10)
                mover.send_signal(signal.SIGKILL)
            assert len(shop.owners(2)) <= 1
            result = flashsale("shard", "move", 2, "--to", NAMES[target])
            assert result.exit_code == 0, result.output
            target = "b" if target == "a" else "a"
        count = len(buyers.orders)
        wait_until(lambda: len(buyers.orders) > count + 5, "the sale goes on")
    assert {code for _, code in buyers.refused} <= {"busy", "unavailable"}
    buyers.check()
    shop.check()
    assert value(shop["b"], "select count(*) from flashsale_data.holds") >= 0


def is_moving(shop: Shop) -> bool:
    query = "select exists (select from pg_stat_activity where application_name = 'flashsale shard move')"
    return bool(value(shop.a, query))


def test_a_product_that_stays_locked_keeps_its_slot(
    shop: Shop, flashsale: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(moving, "LOCK_TIMEOUT", "50ms")
    monkeypatch.setattr(moving, "ATTEMPTS", 2)
    product = shop.product(2)
    with shop.connect("b") as other, other.transaction():
        other.execute("select flashsale.place_hold(%s, 1)", (product,))
        result = flashsale("shard", "move", 2, "--to", NAMES["a"])
    assert result.exit_code == 1
    assert "stays locked by an open transaction" in result.output
    assert shop.owners(2) == ["b"]
    assert flashsale("shard", "move", 2, "--to", NAMES["a"]).exit_code == 0
    shop.check()


def test_a_move_needs_servers_that_know_its_target(
    shop: Shop, tmp_path: Path, flashsale: Callable[..., Result]
) -> None:
    shop.product(0)
    with shop.server(tmp_path / "gunicorn.log", urls=shop.url("a")) as client:
        assert client.get("/healthz").status_code == 200
        refused = flashsale("shard", "move", 0, "--to", NAMES["b"])
        assert refused.exit_code == 1
        assert "Restart them with all databases" in refused.output
        assert shop.owners(0) == ["a"]
        assert flashsale("shard", "move", 0, "--to", NAMES["b"], "--force").exit_code == 0
    assert shop.owners(0) == ["b"]


def test_a_dry_run_moves_nothing(shop: Shop, flashsale: Callable[..., Result]) -> None:
    shop.product(0)
    result = flashsale("shard", "move", "0-3", "--to", NAMES["b"], "--dry-run")
    assert result.stdout.splitlines() == [
        f"slot 0: 1 product, from {NAMES['a']} to {NAMES['b']}",
        f"slot 1: 0 products, from {NAMES['a']} to {NAMES['b']}",
    ]
    assert [shop.owner(slot) for slot in range(SLOTS)] == ["a", "a", "b", "b"]


@pytest.mark.parametrize(
    ("slots", "name", "sentence"),
    [
        ("4", NAMES["a"], "there is no slot 4: they are 0 to 3"),
        ("0", "elsewhere", "there is no shard 'elsewhere'; there are flashsale_a, flashsale_b"),
        ("x", NAMES["a"], "'x' does not name slots, such as 8-15 or 1,3,8-11"),
    ],
)
def test_what_cannot_move(
    shop: Shop, flashsale: Callable[..., Result], slots: str, name: str, sentence: str
) -> None:
    result = flashsale("shard", "move", slots, "--to", name)
    assert result.exit_code in (1, 2)
    assert sentence in result.output
