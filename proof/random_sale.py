"""A sale in random steps, which can be repeated in another database."""

from collections.abc import Callable
from random import Random
from typing import Any

import psycopg

from tests.support import sql_calls as calls
from tests.support.sql_calls import outcome


class Sale:
    """The steps of a sale in one database. They name holds and orders by position, so that they can be
    repeated in another."""

    def __init__(self, conn: psycopg.Connection, stocks: list[int]) -> None:
        self.conn = conn
        self.products = [calls.create_product(conn, stock) for stock in stocks]
        self.totals = stocks
        self.holds: list[Any] = []
        self.orders: list[Any] = []

    def place(self, product: int, qty: int, key: str | None) -> object:
        hold = outcome(calls.place_hold, self.conn, self.products[product], qty, key)
        if isinstance(hold, str):
            return hold
        known = [other.hold_id for other in self.holds]
        if hold.hold_id in known:
            return known.index(hold.hold_id), hold.status, hold.expires_at
        self.holds.append(hold)
        return len(known), hold.status, hold.expires_at

    def order(self, hold: int, key: str | None) -> object:
        order = outcome(calls.create_order, self.conn, self.holds[hold].hold_id, key)
        if isinstance(order, str):
            return order
        if order.order_id not in [other.order_id for other in self.orders]:
            self.orders.append(order)
        return order.status, order.amount, order.payment_due_at

    def release(self, hold: int) -> object:
        released = outcome(calls.release_hold, self.conn, self.holds[hold].hold_id)
        return released if isinstance(released, str) else released.status

    def pay(self, order: int, status: str, key: str) -> object:
        payment = outcome(calls.apply_payment, self.conn, key, self.orders[order].order_id, status)
        return payment if isinstance(payment, str) else (payment.status, payment.result)

    def sweep(self) -> None:
        calls.expire_due(self.conn)

    def state(self) -> dict[str, list[object]]:
        """What callers can read."""
        return {
            "available": [calls.available(self.conn, product) for product in self.products],
            "holds": [calls.get_hold(self.conn, hold.hold_id).status for hold in self.holds],
            "orders": [
                (found.status, found.cancel_reason)
                for found in (calls.get_order(self.conn, order.order_id) for order in self.orders)
            ],
        }

    def assert_exact(self) -> None:
        """Available stock is the total less holds and orders, and audit() is empty."""
        state = self.state()
        taken = [0] * len(self.products)
        for hold, status in zip(self.holds, state["holds"], strict=True):
            taken[self.products.index(hold.product_id)] += hold.qty * (status == "active")
        of = {hold.hold_id: hold for hold in self.holds}
        for order, (status, _) in zip(self.orders, state["orders"], strict=True):
            hold = of[calls.value(self.conn, "select hold_id from flashsale_data.orders where order_id = %s",
                                  order.order_id)]  # fmt: skip
            taken[self.products.index(hold.product_id)] += hold.qty * (status != "cancelled")
        assert state["available"] == [total - n for total, n in zip(self.totals, taken, strict=True)]
        assert min(state["available"]) >= 0
        assert calls.audit(self.conn) == []


Step = Callable[[Sale], object]
STATUSES = ["success", "failed", "cancelled", "declined"]


def random_step(random: Random, sale: Sale, number: int) -> Step:
    """A step that is possible in `sale`."""
    key = f"key {number}" if random.random() < 0.5 else None
    kind = random.choice(["place", "place", "order", "order", "release", "pay", "pay"])
    if kind in ("order", "release") and sale.holds:
        hold = random.randrange(max(0, len(sale.holds) - 12), len(sale.holds))
        return (lambda s: s.order(hold, key)) if kind == "order" else (lambda s: s.release(hold))
    if kind == "pay" and sale.orders:
        order = random.randrange(max(0, len(sale.orders) - 8), len(sale.orders))
        status = random.choice(STATUSES)
        return lambda s: s.pay(order, status, f"pay {number}")
    product, qty = random.randrange(len(sale.products)), random.randint(1, 3)
    return lambda s: s.place(product, qty, key)
