"""What buyers were told, to be held against the tables: every acknowledged write is there, none twice."""

import asyncio
import itertools
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from random import Random
from typing import Any, TypeVar

import psycopg

from proof.load_clients import InSql, NothingDone, OverHttp, Payment, Refused, Unknown

Told = TypeVar("Told")
PAUSE = 0.02
"""seconds until a buyer who got no definite answer asks again"""


class Journal:
    """One for all buyers."""

    def __init__(self) -> None:
        self.holds: dict[str, tuple[int, int, int]] = {}
        """by key: hold, product, units"""
        self.orders: dict[str, tuple[int, int]] = {}
        """by key: order, hold"""
        self.payments: dict[str, Payment] = {}
        self.released: set[int] = set()
        self.unkeyed: set[int] = set()
        self.left: set[str] = set()
        """keys whose every answer was that nothing had been done; their buyers left"""
        self.count: Counter[str] = Counter()
        """answers, by what they were"""
        self.last_began: dict[type, float] = {}
        """when the newest acknowledged step began, by how it was asked for"""

    async def step(
        self, buyer: OverHttp | InSql, ask: Callable[[], Awaitable[Told]], key: str | None, random: Random
    ) -> Told:
        """Ask until there is a definite answer, always with the same key.

        :raises Refused: which is definite
        :raises Left: nothing was done, and the buyer asks for it no more
        """
        unknown = False
        while True:
            began = time.monotonic()
            try:
                told = await ask()
            except NothingDone:
                self.count["nothing done"] += 1
                if key is not None and not unknown and random.random() < 0.3:
                    self.left.add(key)
                    raise Left from None
            except Unknown:
                self.count["unknown"] += 1
                unknown = True
            except Refused:
                self.count["refused"] += 1
                raise
            else:
                self.count["acknowledged"] += 1
                self.last_began[type(buyer)] = max(began, self.last_began.get(type(buyer), 0))
                return told
            await asyncio.sleep(PAUSE)

    def faults(self, conn: psycopg.Connection) -> list[str]:
        """Where the tables are not what buyers were told. Everybody must have had a definite answer."""
        rows = conn.execute
        holds = {
            key: tuple(rest)
            for key, *rest in rows(
                "select idempotency_key, hold_id, product_id, qty from flashsale_data.holds"
                " where idempotency_key is not null"
            )
        }
        orders = {
            key: tuple(rest)
            for key, *rest in rows("select idempotency_key, order_id, hold_id from flashsale_data.orders")
        }
        payments = {
            key: Payment(*rest)
            for key, *rest in rows(
                "select idempotency_key, order_id, order_status, result from flashsale_data.payments"
            )
        }
        unkeyed = {
            hold for (hold,) in rows("select hold_id from flashsale_data.holds where idempotency_key is null")
        }
        status = dict(rows("select hold_id, status from flashsale_data.holds").fetchall())
        twice = rows(
            "select kind, coalesce(payment_key, order_id::text, hold_id::text), count(*)"
            " from flashsale_data.events where kind in ('hold_placed', 'hold_released', 'order_created')"
            " group by 1, 2 having count(*) > 1"
        ).fetchall()
        many = len(unkeyed) - len(self.unkeyed) - self.count["unkeyed unknown"]
        return [
            *differences("hold", self.holds, holds),
            *differences("order", self.orders, orders),
            *differences("payment", self.payments, payments),
            *(f"lost hold {hold}, which had no key" for hold in self.unkeyed - unkeyed),
            *([f"{many} holds more without a key than were asked for"] if many > 0 else []),
            *(f"hold {hold} was released and is {status.get(hold)}" for hold in self.released
              if status.get(hold) != "released"),
            *(f"{key} was done, and its buyer told that it was not"
              for key in self.left & (holds.keys() | orders.keys() | payments.keys())),
            *(f"in the ledger {times} times: {kind} {what}" for kind, what, times in twice),
            *(f"audit: {name}: {detail}" for name, detail in rows("select * from flashsale.audit()")),
        ]  # fmt: skip


class Left(Exception):
    """The buyer went away, having been told that nothing was done."""


def differences(what: str, told: dict[str, Any], found: dict[str, Any]) -> list[str]:
    return [
        *(f"lost {what} {key}: {told[key]}" for key in told.keys() - found.keys()),
        *(f"nobody was told of {what} {key}: {found[key]}" for key in found.keys() - told.keys()),
        *(f"{what} {key} was told as {told[key]} and is {found[key]}" for key in told.keys() & found.keys()
          if told[key] != found[key]),
    ]  # fmt: skip


async def shop_until(
    stop: Callable[[], bool],
    name: str,
    buyer: OverHttp | InSql,
    products: list[int],
    journal: Journal,
    random: Random,
) -> None:
    """One buyer after the other: hold, then order and payment, or release; now and then without a key."""
    for number in itertools.count():
        if stop():
            break
        with suppress(Refused, Left):
            await _visit(f"{name}-{number}", buyer, products, journal, random)
    await buyer.close()


async def _visit(
    name: str, buyer: OverHttp | InSql, products: list[int], journal: Journal, random: Random
) -> None:
    product, qty = random.choice(products), random.randint(1, 3)
    if random.random() < 0.1:
        try:
            journal.unkeyed.add(await buyer.place_hold(product, qty, None))
        except Unknown:
            journal.count["unkeyed unknown"] += 1
        except NothingDone:
            await asyncio.sleep(PAUSE)
        return

    key = f"hold-{name}"
    hold = await journal.step(buyer, lambda: buyer.place_hold(product, qty, key), key, random)
    journal.holds[key] = (hold, product, qty)
    if random.random() < 0.2:
        await journal.step(buyer, lambda: buyer.release_hold(hold), None, random)
        journal.released.add(hold)
        return

    key = f"order-{name}"
    order = await journal.step(buyer, lambda: buyer.create_order(hold, key), key, random)
    journal.orders[key] = (order, hold)
    status = random.choice(["success", "success", "success", "failed", "cancelled"])
    key = f"pay-{name}"
    payment = await journal.step(buyer, lambda: buyer.apply_payment(key, order, status), key, random)
    journal.payments[key] = payment
    if random.random() < 0.1:
        again = await journal.step(buyer, lambda: buyer.apply_payment(key, order, status), None, random)
        assert again == payment, (again, payment)
