"""No oversell and no undersell: sales with random stock, buyers and quantities, and concurrent calls."""

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
from proof.channels import Channel, HttpRequests, ScalarCalls, SetBasedCalls, http_outcome
from proof.tables import EMPTY
from tests.support.sql_calls import audit, change_settings, create_product, rows, value
from tests.support.waiting import wait_until

AT_ONCE = 10
"""sales"""

# The statuses of an order's webhooks, in turn; the same one twice is the same webhook twice.
WEBHOOKS = {
    "pays": ["success"],
    "pays, and is reported twice": ["success", "success"],
    "pays twice": ["success", "success again"],
    "pays at the second try": ["failed", "success"],
    "fails": ["failed"],
    "cancels, and pays": ["cancelled", "success"],
    "leaves the order": [],
}
FATES = [*["pays"] * 6, *WEBHOOKS, "releases", "leaves the hold"]
PAYING_FATES = ("pays", "pays, and is reported twice", "pays twice", "pays at the second try")

# In one snapshot: the stock that callers read, and what the rows of holds and orders leave.
INVARIANTS = """
select read.id, read.available_stock, read.total_stock,
       read.total_stock - coalesce(h.held, 0) - coalesce(o.awaiting, 0) - coalesce(o.paid, 0) as left_over
from flashsale.get_stock(array(select p.product_id from flashsale_data.products p limit 1000)) read
left join lateral (
  select sum(h.qty) as held
  from flashsale_data.holds h
  where h.product_id = read.id and h.status = 'active' and h.expires_at > read.at) h on true
left join lateral (
  select sum(o.qty) filter (where o.status = 'pending_payment' and o.payment_due_at > read.at) as awaiting,
         sum(o.qty) filter (where o.status = 'paid') as paid
  from flashsale_data.orders o
  where o.product_id = read.id) o on true
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


class InvariantChecker:
    """Compares the stock that callers read with the rows, and calls audit()."""

    def __init__(self, conn: psycopg.Connection) -> None:
        self.conn = conn
        self.times = 0

    def check(self) -> None:
        # get_stock() has the snapshot of the query only above READ COMMITTED.
        with self.conn.transaction():
            self.conn.execute("set transaction isolation level repeatable read")
            products = rows(self.conn, INVARIANTS)
        for product in products:
            assert 0 <= product.available_stock == product.left_over <= product.total_stock, product
        assert audit(self.conn) == []
        self.times += 1

    @contextmanager
    def running(self) -> Iterator[None]:
        """Check every second."""
        closed = threading.Event()

        def check_until_closed() -> None:
            while not closed.wait(1):
                self.check()

        with ThreadPoolExecutor(1) as pool:
            checking = pool.submit(check_until_closed)
            try:
                yield
            finally:
                closed.set()
        checking.result()


# --- buyers ---


def serve(channel: Channel, buyers: Sequence[Buyer]) -> None:
    """The flow of some buyers, each step of it in one call."""
    holds = channel.hold([(buyer.sale.product, buyer.qty) for buyer in buyers])
    holders = []
    for buyer, hold in zip(buyers, holds, strict=True):
        assert isinstance(hold, int) or hold == "SA002", hold
        buyer.still_wants = hold == "SA002"
        if not buyer.still_wants and buyer.fate != "leaves the hold":
            holders.append((buyer, hold))

    releasing = [hold for buyer, hold in holders if buyer.fate == "releases"]
    assert set(channel.release(releasing) if releasing else []) <= {"released", "SA004"}

    ordering = [(buyer, hold) for buyer, hold in holders if buyer.fate != "releases"]
    orders = channel.order([hold for _, hold in ordering]) if ordering else []
    webhooks: list[tuple[Buyer, tuple[str, int, str]]] = []
    for (buyer, _), order in zip(ordering, orders, strict=True):
        assert isinstance(order, int) or order == "SA004", order
        # The hold has expired.
        buyer.still_wants = order == "SA004" and buyer.fate in PAYING_FATES
        if order != "SA004":
            number = next(keys)
            webhooks += [
                (buyer, (f"{status} {number}", order, status.removesuffix(" again")))
                for status in WEBHOOKS[buyer.fate]
            ]
    results = channel.pay([webhook for _, webhook in webhooks]) if webhooks else []
    for (buyer, (_, order, status)), result in zip(webhooks, results, strict=True):
        if status == "success":
            assert result in ("applied", "refund_due"), result
            if result == "applied":
                buyer.paid_order = order
            else:
                buyer.still_wants = buyer.paid_order is None and buyer.fate in PAYING_FATES
        else:
            assert result in ("applied", "no_change"), result


class ChannelPool:
    """Channels of every kind, shared by all buyers."""

    def __init__(self, channels: dict[type, list[Channel]], dice: random.Random) -> None:
        self.dice = dice
        self.free: dict[type, queue.SimpleQueue[Channel]] = {kind: queue.SimpleQueue() for kind in channels}
        for kind, each in channels.items():
            for channel in each:
                self.free[kind].put(channel)
        self.size = sum(map(len, channels.values()))

    def serve_all(self, buyers: Sequence[Buyer]) -> None:
        waiting = self.dice.sample(buyers, len(buyers))
        batches: list[tuple[type, list[Buyer]]] = []
        while waiting:
            kind = self.dice.choice(list(self.free))
            size = self.dice.randint(2, 8) if kind is SetBasedCalls else 1
            batches.append((kind, waiting[:size]))
            del waiting[:size]
        with ThreadPoolExecutor(self.size) as pool:
            for served in [pool.submit(self._serve, *batch) for batch in batches]:
                served.result()

    def _serve(self, kind: type, buyers: list[Buyer]) -> None:
        channel = self.free[kind].get()
        try:
            serve(channel, buyers)
        finally:
            self.free[kind].put(channel)


def open_sales(db: psycopg.Connection, dice: random.Random, number: int) -> list[Buyer]:
    """Creates `number` sales. Returns the buyers of all of them."""
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


def run_sales(
    db: psycopg.Connection, dice: random.Random, channels: ChannelPool, buyers: Sequence[Buyer]
) -> None:
    """First with short times; then buyers who were not served try again, until none can be served."""
    change_settings(
        db, hold_time=f"{dice.randint(200, 800)} ms", payment_window=f"{dice.randint(200, 800)} ms"
    )
    channels.serve_all(buyers)
    change_settings(db, hold_time="2 minutes", payment_window="15 minutes")
    if dice.random() < 0.5:
        value(db, "select flashsale.expire_due()")
    wait_until(
        lambda: value(db, "select coalesce(sum(held + awaiting), 0) from flashsale.stock") == 0,
        "all holds and orders have lapsed",
    )
    while remaining := [
        buyer for buyer in buyers if buyer.still_wants and buyer.qty <= available(db, buyer.sale)
    ]:
        for buyer in remaining:
            buyer.fate = "pays"
        channels.serve_all(remaining)
        assert not all(buyer.still_wants for buyer in remaining), (
            "some are served if there are enough units for each"
        )


def available(db: psycopg.Connection, sale: Sale) -> int:
    return value(db, "select available_stock from flashsale.stock where product_id = %s", sale.product)


def check_sales(db: psycopg.Connection, buyers: Sequence[Buyer]) -> None:
    """No oversell, no unit left that a buyer wanted, and paid orders are those whose buyers saw it."""
    paid = dict(rows(db, "select order_id, qty from flashsale_data.orders where status = 'paid'"))
    assert {buyer.paid_order: buyer.qty for buyer in buyers if buyer.paid_order} == paid
    for product in {buyer.sale.product for buyer in buyers}:
        of_sale = [buyer for buyer in buyers if buyer.sale.product == product]
        sale = of_sale[0].sale
        sold = sum(buyer.qty for buyer in of_sale if buyer.paid_order)
        assert sold + available(db, sale) == sale.stock
        assert all(buyer.qty > sale.stock - sold for buyer in of_sale if buyer.still_wants)
        if sale.everybody_pays and {buyer.qty for buyer in of_sale} == {1}:
            assert sold == min(sale.stock, len(of_sale))


@pytest.fixture
def channels(
    connect: Callable[..., psycopg.Connection], server: str, campaign: Campaign
) -> Iterator[ChannelPool]:
    with httpx.Client(base_url=server, timeout=30) as client:
        yield ChannelPool(
            {
                ScalarCalls: [ScalarCalls(connect("flashsale_app")) for _ in range(8)],
                SetBasedCalls: [SetBasedCalls(connect("flashsale_app")) for _ in range(4)],
                HttpRequests: [HttpRequests(client) for _ in range(4)],
            },
            campaign.random,
        )


def test_random_sales_neither_oversell_nor_undersell(
    db: psycopg.Connection,
    connect: Callable[..., psycopg.Connection],
    channels: ChannelPool,
    campaign: Campaign,
) -> None:
    number = campaign.size(AT_ONCE, 1000)
    dice = campaign.random
    invariants = InvariantChecker(connect())
    all_buyers = units = 0
    for _ in range(number // AT_ONCE):
        buyers = open_sales(db, dice, AT_ONCE)
        with invariants.running():
            run_sales(db, dice, channels, buyers)
        invariants.check()
        check_sales(db, buyers)
        all_buyers += len(buyers)
        units += sum(buyer.qty for buyer in buyers if buyer.paid_order)
        # Keeps the check of the next sales cheap.
        db.execute(EMPTY)
        db.execute("vacuum")
    campaign.record(
        f"{number:,} random sales, {AT_ONCE} at a time: {all_buyers:,} buyers on {channels.size} channels"
        " (scalar calls, set-based calls, HTTP), who pay, fail, cancel, pay twice, release and let lapse;"
        f" invariants checked {invariants.times:,} times",
        f"all; {units:,} units sold, none oversold, none left that a buyer wanted",
        sales=number,
        buyers=all_buyers,
        units_sold=units,
    )


def test_a_rush_over_http_sells_exactly_what_there_is(
    db: psycopg.Connection, connect: Callable[..., psycopg.Connection], server: str, campaign: Campaign
) -> None:
    buyers, at_a_time = campaign.size((200, 50), (10_000, 200))
    stock = campaign.random.randint(buyers // 10, buyers // 3)
    sale = Sale(create_product(db, stock=stock), stock, everybody_pays=True)
    invariants = InvariantChecker(connect())
    with invariants.running():
        paid = asyncio.run(rush(server, sale.product, buyers, at_a_time))
    invariants.check()
    assert paid == stock
    assert available(db, sale) == 0
    assert value(db, "select count(*) from flashsale_data.orders where status = 'paid'") == stock
    campaign.record(
        f"a sale of {stock:,} units to {buyers:,} buyers over HTTP, {at_a_time} at a time, who all pay;"
        f" invariants checked {invariants.times:,} times",
        f"all; exactly {paid:,} sold",
        sales=1,
        buyers=buyers,
        units_sold=paid,
    )


async def rush(server: str, product: int, buyers: int, at_a_time: int) -> int:
    """Returns how many have paid."""
    waiting = iter(range(buyers))

    async def post(client: httpx.AsyncClient, member: str, path: str, **body: object) -> int | str:
        key = {"Idempotency-Key": uuid4().hex}
        while (response := await client.post(f"/api/{path}", json=body, headers=key)).status_code == 503:
            await asyncio.sleep(0.02)
        return http_outcome(response, member)

    async def run_buyers() -> int:
        paid = 0
        # A client each: one with 200 connections spends its time looking for a free one.
        async with httpx.AsyncClient(base_url=server, timeout=60, verify=False) as client:
            for number in waiting:
                hold = await post(client, "hold_id", "holds", product_id=product, qty=1)
                if hold == "SA002":
                    continue
                order = await post(client, "order_id", "orders", hold_id=hold)
                webhook = {"idempotency_key": f"rush {number}", "order_id": order, "status": "success"}
                paid += await post(client, "result", "payments/webhook", **webhook) == "applied"
        return paid

    return sum(await asyncio.gather(*(run_buyers() for _ in range(at_a_time))))
