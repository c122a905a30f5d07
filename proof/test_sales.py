"""No oversell and no undersell: sales with random stock, buyers, quantities and fates, many callers at
once."""

import asyncio
import queue
import random
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from uuid import uuid4

import httpx
import psycopg
import pytest

from proof.campaign import Campaign
from proof.channels import Http, Joined, Scalar, Till, answered
from proof.tables import EMPTY
from tests.support.sql_calls import audit, change_settings, create_product, rows, value
from tests.support.waiting import wait_until

AT_ONCE = 10
"""sales"""

# What the provider says of an order, in turn; the same word twice is the same webhook twice.
WORDS = {
    "pays": ["success"],
    "is reported twice": ["success", "success"],
    "pays twice": ["success", "success again"],
    "pays at the second try": ["failed", "success"],
    "fails": ["failed"],
    "cancels, and pays": ["cancelled", "success"],
    "leaves the order": [],
}
FATES = [*["pays"] * 6, *WORDS, "releases", "leaves the hold"]
BUYS = ("pays", "is reported twice", "pays twice", "pays at the second try")

# What is true at one instant: what callers are told, beside what the holds and orders add up to.
INVARIANTS = """
select told.id, told.available_stock, told.total_stock,
       told.total_stock - coalesce(h.held, 0) - coalesce(o.awaiting, 0) - coalesce(o.paid, 0) as left_over
from flashsale.get_stock(array(select p.product_id from flashsale_data.products p limit 1000)) told
left join lateral (
  select sum(h.qty) as held
  from flashsale_data.holds h
  where h.product_id = told.id and h.status = 'active' and h.expires_at > told.at) h on true
left join lateral (
  select sum(o.qty) filter (where o.status = 'pending_payment' and o.payment_due_at > told.at) as awaiting,
         sum(o.qty) filter (where o.status = 'paid') as paid
  from flashsale_data.orders o
  where o.product_id = told.id) o on true
"""

keys = count(1)


@dataclass
class Sale:
    product: int
    stock: int
    everybody_pays: bool


@dataclass
class Buyer:
    sale: Sale
    qty: int
    fate: str
    paid_order: int | None = None
    still_wants: bool = False


class Watch:
    """Asks every second whether what callers are told is so."""

    def __init__(self, conn: psycopg.Connection) -> None:
        self.conn = conn
        self.times = 0

    def look(self) -> None:
        for told in rows(self.conn, INVARIANTS):
            assert 0 <= told.available_stock == told.left_over <= told.total_stock, told
        assert audit(self.conn) == []
        self.times += 1


@contextmanager
def watching(watch: Watch) -> Iterator[None]:
    closed = threading.Event()

    def keep_looking() -> None:
        while not closed.wait(1):
            watch.look()

    with ThreadPoolExecutor(1) as pool:
        looking = pool.submit(keep_looking)
        try:
            yield
        finally:
            closed.set()
    looking.result()


# --- buyers ---


def serve(till: Till, party: Sequence[Buyer]) -> None:
    """A party's way through the shop, each step of it together."""
    holds = till.hold([(buyer.sale.product, buyer.qty) for buyer in party])
    holders = []
    for buyer, hold in zip(party, holds, strict=True):
        assert isinstance(hold, int) or hold == "SA002", hold
        buyer.still_wants = hold == "SA002"
        if not buyer.still_wants and buyer.fate != "leaves the hold":
            holders.append((buyer, hold))

    releasing = [hold for buyer, hold in holders if buyer.fate == "releases"]
    assert set(till.release(releasing) if releasing else []) <= {"released", "SA004"}

    ordering = [(buyer, hold) for buyer, hold in holders if buyer.fate != "releases"]
    orders = till.order([hold for _, hold in ordering]) if ordering else []
    words: list[tuple[Buyer, tuple[str, int, str]]] = []
    for (buyer, _), order in zip(ordering, orders, strict=True):
        assert isinstance(order, int) or order == "SA004", order
        # A slow one's hold has lapsed.
        buyer.still_wants = order == "SA004" and buyer.fate in BUYS
        if order != "SA004":
            number = next(keys)
            words += [
                (buyer, (f"{word} {number}", order, word.removesuffix(" again")))
                for word in WORDS[buyer.fate]
            ]
    # In turn: of one order's words the first is told first.
    results = till.pay([word for _, word in words]) if words else []
    for (buyer, (_, order, word)), result in zip(words, results, strict=True):
        if word == "success":
            assert result in ("applied", "refund_due"), result
            if result == "applied":
                buyer.paid_order = order
            else:
                buyer.still_wants = buyer.paid_order is None and buyer.fate in BUYS
        else:
            assert result in ("applied", "no_change"), result


class Hall:
    """Tills of every kind, and parties that go to whichever of theirs is free."""

    def __init__(self, tills: dict[type, list[Till]], dice: random.Random) -> None:
        self.dice = dice
        self.free: dict[type, queue.SimpleQueue[Till]] = {kind: queue.SimpleQueue() for kind in tills}
        for kind, each in tills.items():
            for till in each:
                self.free[kind].put(till)
        self.width = sum(map(len, tills.values()))

    def let_in(self, buyers: Sequence[Buyer]) -> None:
        waiting = self.dice.sample(buyers, len(buyers))
        parties: list[tuple[type, list[Buyer]]] = []
        while waiting:
            kind = self.dice.choice(list(self.free))
            size = self.dice.randint(2, 8) if kind is Joined else 1
            parties.append((kind, waiting[:size]))
            del waiting[:size]
        with ThreadPoolExecutor(self.width) as pool:
            for served in [pool.submit(self.send, *party) for party in parties]:
                served.result()

    def send(self, kind: type, party: list[Buyer]) -> None:
        till = self.free[kind].get()
        try:
            serve(till, party)
        finally:
            self.free[kind].put(till)


def open_sales(db: psycopg.Connection, dice: random.Random, number: int) -> list[Buyer]:
    """So many sales; all their buyers."""
    buyers = []
    for _ in range(number):
        stock = dice.randint(0, 40)
        sale = Sale(create_product(db, stock=stock), stock, everybody_pays=dice.random() < 0.4)
        largest = dice.choice([1, 1, 2, 4])
        buyers += [
            Buyer(sale, dice.randint(1, largest), "pays" if sale.everybody_pays else dice.choice(FATES))
            for _ in range(dice.randint(1, 50))
        ]
    return buyers


def hold_sales(db: psycopg.Connection, dice: random.Random, hall: Hall, buyers: Sequence[Buyer]) -> None:
    """The rush, with short times; then whoever still wants some comes again, until nobody can be served."""
    change_settings(
        db, hold_time=f"{dice.randint(200, 800)} ms", payment_window=f"{dice.randint(200, 800)} ms"
    )
    hall.let_in(buyers)
    change_settings(db, hold_time="2 minutes", payment_window="15 minutes")
    if dice.random() < 0.5:
        value(db, "select flashsale.expire_due()")
    wait_until(
        lambda: value(db, "select coalesce(sum(held + awaiting), 0) from flashsale.stock") == 0,
        "what was left has lapsed",
    )
    while again := [
        buyer for buyer in buyers if buyer.still_wants and buyer.qty <= available(db, buyer.sale)
    ]:
        for buyer in again:
            buyer.fate = "pays"
        hall.let_in(again)
        assert not all(buyer.still_wants for buyer in again), (
            "none is served, though there is enough for each"
        )


def available(db: psycopg.Connection, sale: Sale) -> int:
    return value(db, "select available_stock from flashsale.stock where product_id = %s", sale.product)


def close_sales(db: psycopg.Connection, buyers: Sequence[Buyer]) -> None:
    """Nothing oversold, nothing left that somebody wanted, and paid is who was told so."""
    paid = dict(rows(db, "select order_id, qty from flashsale_data.orders where status = 'paid'"))
    assert {buyer.paid_order: buyer.qty for buyer in buyers if buyer.paid_order} == paid
    for product in {buyer.sale.product for buyer in buyers}:
        there = [buyer for buyer in buyers if buyer.sale.product == product]
        sale = there[0].sale
        sold = sum(buyer.qty for buyer in there if buyer.paid_order)
        assert sold + available(db, sale) == sale.stock
        assert all(buyer.qty > sale.stock - sold for buyer in there if buyer.still_wants)
        if sale.everybody_pays and {buyer.qty for buyer in there} == {1}:
            assert sold == min(sale.stock, len(there))


@pytest.fixture
def hall(connect: Callable[..., psycopg.Connection], server: str, campaign: Campaign) -> Iterator[Hall]:
    with httpx.Client(base_url=server, timeout=30) as client:
        yield Hall(
            {
                Scalar: [Scalar(connect("flashsale_app")) for _ in range(8)],
                Joined: [Joined(connect("flashsale_app")) for _ in range(4)],
                Http: [Http(client) for _ in range(4)],
            },
            campaign.random,
        )


def test_random_sales_oversell_nothing_and_leave_nothing_unsold(
    db: psycopg.Connection, connect: Callable[..., psycopg.Connection], hall: Hall, campaign: Campaign
) -> None:
    number = campaign.size(AT_ONCE, 1000)
    dice = campaign.random
    watch = Watch(connect())
    all_buyers = units = 0
    for _ in range(number // AT_ONCE):
        buyers = open_sales(db, dice, AT_ONCE)
        with watching(watch):
            hold_sales(db, dice, hall, buyers)
        watch.look()
        close_sales(db, buyers)
        all_buyers += len(buyers)
        units += sum(buyer.qty for buyer in buyers if buyer.paid_order)
        # The next ones find the books empty, so that to read them every second costs little.
        db.execute(EMPTY)
        db.execute("vacuum")
    campaign.tried(
        f"{number:,} random sales, {AT_ONCE} at a time: {all_buyers:,} buyers at {hall.width} tills"
        " (one call each, joined calls, HTTP), who pay, fail, cancel, pay twice, release and let lapse;"
        f" invariants read {watch.times:,} times",
        f"all; {units:,} units sold, none too many, none left that somebody wanted",
    )


def test_a_rush_over_http_sells_exactly_what_there_is(
    db: psycopg.Connection, connect: Callable[..., psycopg.Connection], server: str, campaign: Campaign
) -> None:
    buyers, at_a_time = campaign.size((200, 50), (10_000, 200))
    stock = campaign.random.randint(buyers // 10, buyers // 3)
    sale = Sale(create_product(db, stock=stock), stock, everybody_pays=True)
    watch = Watch(connect())
    with watching(watch):
        paid = asyncio.run(rush(server, sale.product, buyers, at_a_time))
    watch.look()
    assert paid == stock
    assert available(db, sale) == 0
    assert value(db, "select count(*) from flashsale_data.orders where status = 'paid'") == stock
    campaign.tried(
        f"a sale of {stock:,} units to {buyers:,} buyers over HTTP, {at_a_time} at a time, who all pay;"
        f" invariants read {watch.times:,} times",
        f"all; exactly {paid:,} sold",
    )


async def rush(server: str, product: int, buyers: int, at_a_time: int) -> int:
    """How many have paid."""
    coming = iter(range(buyers))

    async def post(client: httpx.AsyncClient, name: str, path: str, **body: object) -> int | str:
        key = {"Idempotency-Key": uuid4().hex}
        while (answer := await client.post(f"/api/{path}", json=body, headers=key)).status_code == 503:
            await asyncio.sleep(0.02)
        return answered(answer, name)

    async def queue_up() -> int:
        paid = 0
        # A client each: one that keeps 200 connections spends its time looking for a free one.
        async with httpx.AsyncClient(base_url=server, timeout=60, verify=False) as client:
            for number in coming:
                hold = await post(client, "hold_id", "holds", product_id=product, qty=1)
                if hold == "SA002":
                    continue
                order = await post(client, "order_id", "orders", hold_id=hold)
                webhook = {"idempotency_key": f"rush {number}", "order_id": order, "status": "success"}
                paid += await post(client, "result", "payments/webhook", **webhook) == "applied"
        return paid

    return sum(await asyncio.gather(*(queue_up() for _ in range(at_a_time))))
