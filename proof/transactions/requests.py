"""Random requests to one small shop, over ids and keys that all sessions share."""

import random
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import psycopg

from proof.transactions.history import Transaction
from tests.support import sql_calls as calls

PRICE = 5
PRODUCTS = 6
SHORTEST_INBOX_KEEP = 1.0
"""seconds; the shortest that can be set"""
SETTINGS = {"hold_time": (0.3, 1.0), "payment_window": (0.5, 1.5), "inbox_keep": (SHORTEST_INBOX_KEEP, 1.6)}
"""seconds, from and to"""
STALE = (0.9, 3.0)
"""seconds since a webhook was sent: its wait is about to end, or has just ended"""

SCALAR: dict[str, Callable[..., Any]] = {
    "place_hold": calls.place_hold,
    "release_hold": calls.release_hold,
    "create_order": calls.create_order,
    "apply_payment": lambda conn, key, order, status, payload: calls.apply_payment(
        conn, key, order, status, **payload
    ),
    "adjust_stock": calls.adjust_stock,
    "expire_due": calls.expire_due,
    "purge": lambda conn, age: calls.rows(conn, "select * from flashsale.purge(%s)", age),
    "change_settings": lambda conn, settings: calls.change_settings(conn, **settings),
    "get_product": calls.get_product,
}
SET_BASED: dict[str, Callable[..., list[Any]]] = {
    "place_hold": calls.place_holds,
    "release_hold": lambda conn, *requests: calls.release_holds(conn, *(hold for (hold,) in requests)),
    "create_order": calls.create_orders,
    "apply_payment": calls.apply_payments,
}


@dataclass
class Prepared:
    """A prepared transaction, to be finished at `due` (time.monotonic())."""

    gid: str
    transaction: Transaction
    due: float


@dataclass
class Shop:
    """The products, and the latest ids and keys: sessions meet because they draw from the same few."""

    products: list[int]
    holds: deque[int] = field(default_factory=lambda: deque(maxlen=20))
    orders: deque[int] = field(default_factory=lambda: deque(maxlen=12))
    keyed_holds: deque[tuple] = field(default_factory=lambda: deque(maxlen=12))
    keyed_orders: deque[tuple] = field(default_factory=lambda: deque(maxlen=12))
    webhooks: deque[tuple[float, tuple]] = field(default_factory=lambda: deque(maxlen=60))
    """when each was sent, and its request"""
    prepared: list[Prepared] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def take_prepared(self) -> Prepared | None:
        """A prepared transaction that is due; each is taken once."""
        with self.lock:
            due = [prepared for prepared in self.prepared if prepared.due <= time.monotonic()]
            if due:
                self.prepared.remove(due[0])
            return due[0] if due else None


def open_shop(conn: psycopg.Connection, choices: random.Random) -> Shop:
    """A few products with a few units each."""
    calls.change_settings(
        conn, hold_time="1 second", payment_window="1.5 seconds", inbox_keep="1 second", inbox_limit=10000
    )
    return Shop([calls.create_product(conn, choices.randint(3, 12), f"{PRICE}.00") for _ in range(PRODUCTS)])


class Requests:
    """Random requests of one session.

    :param name: the prefix of its idempotency keys
    """

    def __init__(self, name: str, shop: Shop, choices: random.Random) -> None:
        self.name = name
        self.shop = shop
        self.random = choices
        self.own_hold: int | None = None
        self.own_order: int | None = None
        self._keys = 0

    def request(self, conn: psycopg.Connection, step: str) -> tuple[str, tuple]:
        """The function that a step calls, and arguments for it."""
        choose, shop = self.random, self.shop
        match step:
            case "place":
                return "place_hold", self._place()
            case "order" | "order own":
                return "create_order", self._order(own=step == "order own")
            case "release" | "release own":
                own = self.own_hold if step == "release own" else None
                return "release_hold", (own or self._some_hold(),)
            case "pay" | "cancel" | "pay own" | "cancel own":
                return "apply_payment", self._webhook(step)
            case "store":
                ahead = choose.randrange(choose.choice((1, 1, 6, 25)))
                order = calls.next_order_id(conn) + ahead
                return "apply_payment", (self._key(), order, self._status(), self._payload())
            case "replay" | "reuse" if shop.webhooks:
                return "apply_payment", self._known_webhook(reuse=step == "reuse")
            case "sweep":
                return "expire_due", (choose.choice((1, 2, 5, 1000)),)
            case "purge":
                return "purge", (choose.choice(("0", "0", "0.3 seconds", "1 second")),)
            case "settings":
                return "change_settings", (self._settings(),)
            case "adjust" | "restock":
                delta = choose.choice((-4, -2, -1, 1, 2) if step == "adjust" else (2, 4, 6))
                return "adjust_stock", (choose.choice(shop.products), delta)
        return "get_product", (choose.choice(shop.products),)

    def remember(self, function: str, request: tuple, row: Any) -> None:
        """Later requests of all sessions may name what this one did."""
        shop = self.shop
        match function:
            case "place_hold":
                self.own_hold = row.hold_id
                shop.holds.append(row.hold_id)
                if request[2] is not None:
                    shop.keyed_holds.append(request)
            case "create_order":
                self.own_order = row.order_id
                shop.orders.append(row.order_id)
                if request[1] is not None:
                    shop.keyed_orders.append(request)
            case "apply_payment":
                shop.webhooks.append((time.monotonic(), request))

    def _place(self) -> tuple:
        self.own_hold = None
        if self.shop.keyed_holds and self.random.random() < 0.15:
            product, qty, key = self.random.choice(list(self.shop.keyed_holds))
            return product, self.random.choice((qty, qty, qty + 1)), key
        key = self.random.choice((None, self._key()))
        return self.random.choice(self.shop.products), self.random.randint(1, 3), key

    def _order(self, own: bool) -> tuple:
        if own and self.own_hold:
            return self.own_hold, self.random.choice((None, self._key()))
        if self.shop.keyed_orders and self.random.random() < 0.2:
            hold, key = self.random.choice(list(self.shop.keyed_orders))
            return self.random.choice((hold, hold, self._some_hold())), key
        return self._some_hold(), self.random.choice((None, self._key()))

    def _webhook(self, step: str) -> tuple:
        order = self.own_order if step.endswith(" own") and self.own_order else self._some_order()
        status = {"pay": self._status(), "pay own": "success"}.get(step, "cancelled")
        return self._key(), order, status, self._payload()

    def _known_webhook(self, reuse: bool) -> tuple:
        """A webhook that was sent before; to reuse its key, with another order and perhaps status."""
        sent = list(self.shop.webhooks)
        if not reuse:
            return self.random.choice(sent)[1]
        # Most likely to find a gap: the key is about to be free, and an order that is just being created
        # applies its webhook.
        now, orders = time.monotonic(), list(self.shop.orders)[-6:]
        likely = [
            (at, request)
            for at, request in sent
            if STALE[0] < now - at < STALE[1] and request[2] != "success" and request[1] in orders
        ]
        _, (key, _, _, payload) = self.random.choice(
            likely if likely and self.random.random() < 0.7 else sent
        )
        order = self.own_order if self.own_order and self.random.random() < 0.7 else self._some_order()
        return key, order, self.random.choice(("success", "success", "success", "failed")), payload

    def _key(self) -> str:
        self._keys += 1
        return f"{self.name}-{self._keys}"

    def _some_hold(self) -> int:
        holds = list(self.shop.holds) or [1]
        # The newest may be committed while the call runs.
        return holds[-1] if self.random.random() < 0.3 else self.random.choice(holds)

    def _some_order(self) -> int:
        return self.random.choice(list(self.shop.orders) or [1])

    def _status(self) -> str:
        return self.random.choice(("success", "success", "failed", "cancelled"))

    def _payload(self) -> dict[str, str]:
        amount = f"{PRICE * self.random.choice((1, 2, 3))}.00"
        return self.random.choice(({}, {}, {}, {"amount": amount}))

    def _settings(self) -> dict[str, str]:
        chosen = self.random.sample(list(SETTINGS), self.random.randint(1, 3))
        return {name: f"{self.random.uniform(*SETTINGS[name]):.3f} seconds" for name in chosen}
