"""The writes that buyers saw acknowledged, compared with the tables: each is there, none twice."""

import asyncio
import itertools
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from random import Random
from typing import Any, TypeVar

import psycopg

from proof.load_clients import HttpClient, NotDone, OutcomeUnknown, Payment, Refused, SqlClient

Outcome = TypeVar("Outcome")
RETRY_DELAY_SECONDS = 0.02
"""seconds"""


class AcknowledgedWrites:
    """The record that all buyers share."""

    def __init__(self) -> None:
        self.holds: dict[str, tuple[int, int, int]] = {}
        """by key: hold, product, units"""
        self.orders: dict[str, tuple[int, int]] = {}
        """by key: order, hold"""
        self.payments: dict[str, Payment] = {}
        self.released: set[int] = set()
        self.without_key: set[int] = set()
        self.abandoned: set[str] = set()
        """keys of requests that were only ever answered NotDone and were not retried"""
        self.outcomes: Counter[str] = Counter()
        self.last_began: dict[type, float] = {}
        """when the newest acknowledged step began, by client"""
        self.acknowledged_at: list[float] = []

    def longest_gap(self, since: float) -> float:
        """The longest time after `since` in which no step was acknowledged, in seconds."""
        moments = [since, *(moment for moment in self.acknowledged_at if moment > since), time.monotonic()]
        return max(later - earlier for earlier, later in itertools.pairwise(moments))

    async def retry(
        self,
        client: HttpClient | SqlClient,
        step: Callable[[], Awaitable[Outcome]],
        key: str | None,
        random: Random,
    ) -> Outcome:
        """Repeat a step, with the same key, until its outcome is definite.

        :raises Refused: which is definite
        :raises Abandoned: nothing was done, and the step is not retried
        """
        unknown = False
        while True:
            began = time.monotonic()
            try:
                outcome = await step()
            except NotDone:
                self.outcomes["not done"] += 1
                if key is not None and not unknown and random.random() < 0.3:
                    self.abandoned.add(key)
                    raise Abandoned from None
            except OutcomeUnknown:
                self.outcomes["unknown"] += 1
                unknown = True
            except Refused:
                self.outcomes["refused"] += 1
                raise
            else:
                self.outcomes["acknowledged"] += 1
                self.acknowledged_at.append(time.monotonic())
                self.last_began[type(client)] = max(began, self.last_began.get(type(client), 0))
                return outcome
            await asyncio.sleep(RETRY_DELAY_SECONDS)

    def violations(self, conn: psycopg.Connection) -> list[str]:
        """Where the tables differ from the acknowledged writes. Every outcome must be definite by now."""
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
        without_key = {
            hold for (hold,) in rows("select hold_id from flashsale_data.holds where idempotency_key is null")
        }
        status = dict(rows("select hold_id, status from flashsale_data.holds").fetchall())
        twice = rows(
            "select kind, coalesce(payment_key, order_id::text, hold_id::text), count(*)"
            " from flashsale_data.events where kind in ('hold_placed', 'hold_released', 'order_created')"
            " group by 1, 2 having count(*) > 1"
        ).fetchall()
        surplus = len(without_key) - len(self.without_key) - self.outcomes["unknown without a key"]
        return [
            *differences("hold", self.holds, holds),
            *differences("order", self.orders, orders),
            *differences("payment", self.payments, payments),
            *(f"hold {hold}, which had no key, is lost" for hold in self.without_key - without_key),
            *([f"{surplus} holds without a key more than were requested"] if surplus > 0 else []),
            *(f"hold {hold} was released and is {status.get(hold)}" for hold in self.released
              if status.get(hold) != "released"),
            *(f"{key} was reported as not done, and was done"
              for key in self.abandoned & (holds.keys() | orders.keys() | payments.keys())),
            *(f"{times} events: {kind} {what}" for kind, what, times in twice),
            *(f"audit: {name}: {detail}" for name, detail in rows("select * from flashsale.audit()")),
        ]  # fmt: skip


class Abandoned(Exception):
    """The buyer gave up a step that was not done."""


def differences(what: str, acknowledged: dict[str, Any], found: dict[str, Any]) -> list[str]:
    return [
        *(f"{what} {key} is lost: {acknowledged[key]}" for key in acknowledged.keys() - found.keys()),
        *(f"{what} {key} was never acknowledged: {found[key]}" for key in found.keys() - acknowledged.keys()),
        *(f"{what} {key} was acknowledged as {acknowledged[key]} and is {found[key]}"
          for key in acknowledged.keys() & found.keys() if acknowledged[key] != found[key]),
    ]  # fmt: skip


async def run_buyers(
    stop: Callable[[], bool],
    name: str,
    client: HttpClient | SqlClient,
    products: list[int],
    writes: AcknowledgedWrites,
    random: Random,
) -> None:
    """One buyer after the other: hold, then order and payment, or release; now and then without a key."""
    for number in itertools.count():
        if stop():
            break
        with suppress(Refused, Abandoned):
            await _run_buyer(f"{name}-{number}", client, products, writes, random)
    await client.close()


async def _run_buyer(
    name: str, client: HttpClient | SqlClient, products: list[int], writes: AcknowledgedWrites, random: Random
) -> None:
    product, qty = random.choice(products), random.randint(1, 3)
    if random.random() < 0.1:
        try:
            writes.without_key.add(await client.place_hold(product, qty, None))
        except OutcomeUnknown:
            writes.outcomes["unknown without a key"] += 1
        except NotDone:
            await asyncio.sleep(RETRY_DELAY_SECONDS)
        return

    key = f"hold-{name}"
    hold = await writes.retry(client, lambda: client.place_hold(product, qty, key), key, random)
    writes.holds[key] = (hold, product, qty)
    if random.random() < 0.2:
        await writes.retry(client, lambda: client.release_hold(hold), None, random)
        writes.released.add(hold)
        return

    key = f"order-{name}"
    order = await writes.retry(client, lambda: client.create_order(hold, key), key, random)
    writes.orders[key] = (order, hold)
    status = random.choice(["success", "success", "success", "failed", "cancelled", "declined"])
    key = f"pay-{name}"
    payment = await writes.retry(client, lambda: client.apply_payment(key, order, status), key, random)
    writes.payments[key] = payment
    if random.random() < 0.1:
        replay = await writes.retry(client, lambda: client.apply_payment(key, order, status), None, random)
        assert replay == payment, (replay, payment)
