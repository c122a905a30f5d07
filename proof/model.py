"""The contract in plain Python: what every caller must be told, written from the contract and not from the
SQL.

Time stands still in here, and is counted in ticks: whoever moves the database's clock on calls `tick`. New
ids are the database's to choose, so a request comes with the answer that was seen, and only a new id is taken
from it.

An answer is a dictionary of what the function returns (without times), or the SQLSTATE of its refusal. What
other transactions have locked, and a function therefore leaves alone, is its argument `left`.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field, replace
from typing import Any

Answer = dict[str, Any] | str

PRICE = 99
CURRENCY = "USD"


@dataclass(frozen=True)
class Hold:
    product_id: int
    qty: int
    lapses_at: int
    status: str = "active"


@dataclass(frozen=True)
class Order:
    hold_id: int
    product_id: int
    qty: int
    due_at: int
    status: str = "pending_payment"
    cancel_reason: str | None = None

    @property
    def amount(self) -> str:
        return f"{self.qty * PRICE}.00"


@dataclass(frozen=True)
class Payment:
    order_id: int
    word: str
    amount: str | None
    currency: str | None
    received_at: int
    waits_until: int
    result: str
    order_status: str | None = None

    @property
    def body(self) -> tuple:
        return self.order_id, self.word, self.amount, self.currency


@dataclass
class Model:
    """A shop: dictionaries of immutable records, cheap to copy.

    :param hold_ticks: how long a hold lasts
    :param order_ticks: how long an order awaits payment
    :param keep_ticks: how long a webhook that comes now waits for its order
    """

    hold_ticks: int = 3
    order_ticks: int = 7
    keep_ticks: int = 12
    inbox_limit: int = 10_000
    now: int = 0
    totals: dict[int, int] = field(default_factory=dict)
    holds: dict[int, Hold] = field(default_factory=dict)
    orders: dict[int, Order] = field(default_factory=dict)
    payments: dict[str, Payment] = field(default_factory=dict)  # in order of arrival
    hold_keys: dict[str, int] = field(default_factory=dict)
    order_keys: dict[str, int] = field(default_factory=dict)

    def copy(self) -> "Model":
        return replace(
            self,
            totals=dict(self.totals),
            holds=dict(self.holds),
            orders=dict(self.orders),
            payments=dict(self.payments),
            hold_keys=dict(self.hold_keys),
            order_keys=dict(self.order_keys),
        )

    def tick(self, ticks: int) -> None:
        self.now += ticks

    # --- as it stands at this instant ---

    def hold_status(self, hold_id: int) -> str:
        hold = self.holds[hold_id]
        return "expired" if hold.status == "active" and hold.lapses_at <= self.now else hold.status

    def is_overdue(self, order: Order) -> bool:
        return order.status == "pending_payment" and order.due_at <= self.now

    def order_status(self, order_id: int) -> tuple[str, str | None]:
        order = self.orders[order_id]
        return (
            ("cancelled", "payment_overdue")
            if self.is_overdue(order)
            else (order.status, order.cancel_reason)
        )

    def order_of(self, hold_id: int) -> int | None:
        return next((order_id for order_id, order in self.orders.items() if order.hold_id == hold_id), None)

    def units(self, product_id: int) -> tuple[int, int, int, int]:
        """available, held, awaiting payment, paid"""
        held = sum(
            hold.qty
            for hold_id, hold in self.holds.items()
            if hold.product_id == product_id and self.hold_status(hold_id) == "active"
        )
        awaiting = paid = 0
        for order_id, order in self.orders.items():
            if order.product_id == product_id:
                status, _ = self.order_status(order_id)
                awaiting += order.qty * (status == "pending_payment")
                paid += order.qty * (status == "paid")
        return self.totals[product_id] - held - awaiting - paid, held, awaiting, paid

    def available(self, product_id: int) -> int:
        return self.units(product_id)[0]

    def is_over(self, said: Payment) -> bool:
        """Whether a stored webhook has waited long enough for its order. It is still counted in the inbox."""
        return said.result == "stored" and said.waits_until <= self.now

    def over(self) -> dict[str, str]:
        """What becomes of the stored webhooks whose wait is over."""
        return {
            key: "refund_due" if said.word == "success" else "expired"
            for key, said in self.payments.items()
            if self.is_over(said)
        }

    def result(self, key: str) -> str:
        """What a webhook reads as."""
        return self.over().get(key, self.payments[key].result)

    def refunds_due(self) -> list[str]:
        owed = ("refund_due", "amount_mismatch")
        return [
            key for key, said in self.payments.items() if said.word == "success" and self.result(key) in owed
        ]

    def captured(self) -> list[str]:
        """Payments that the provider has taken the money for, and whose order is known or given up."""
        return [
            key
            for key, said in self.payments.items()
            if said.word == "success" and self.result(key) != "stored"
        ]

    def state(self) -> dict[str, dict]:
        """Everything, as proof/tables.py reads it."""
        return {
            "units": {str(product_id): list(self.units(product_id)) for product_id in self.totals},
            "holds": {str(hold_id): self.hold_status(hold_id) for hold_id in self.holds},
            "orders": {str(order_id): list(self.order_status(order_id)) for order_id in self.orders},
            "marked": {
                **{
                    str(hold_id): "expired"
                    for hold_id, hold in self.holds.items()
                    if hold.status == "expired"
                },
                **{
                    str(order_id): "overdue"
                    for order_id, order in self.orders.items()
                    if order.cancel_reason == "payment_overdue"
                },
            },
            "unswept": self.over(),
            "payments": {
                key: [self.result(key), said.order_status]
                for key, said in self.payments.items()
                if self.result(key) != "expired"
            },
            "inbox": {key: place for place, key in enumerate(self.inbox(), 1)},
            "ticks_left": {key: self.payments[key].waits_until - self.now for key in self.inbox()},
            "settings": {"inbox_keep": self.keep_ticks},
            "refunds_due": {key: self.payments[key].order_id for key in self.refunds_due()},
            "wrong": {},
        }

    # --- requests ---

    def place_hold(self, product_id: int, qty: int, key: str | None, seen: Answer) -> Answer:
        replayed = key in self.hold_keys
        if replayed:
            hold_id = self.hold_keys[key]
            hold = self.holds[hold_id]
            if (hold.product_id, hold.qty) != (product_id, qty):
                return "SA008"
        elif qty < 1:
            return "SA009"
        elif product_id not in self.totals:
            return "SA001"
        elif qty > self.available(product_id):
            return "SA002"
        else:
            hold_id = new_id(seen, "hold_id", self.holds)
            self.holds[hold_id] = Hold(product_id, qty, self.now + self.hold_ticks)
            if key is not None:
                self.hold_keys[key] = hold_id
        order_id = self.order_of(hold_id)
        return {
            "hold_id": hold_id,
            "product_id": product_id,
            "qty": qty,
            "status": self.hold_status(hold_id),
            "order_id": order_id,
            "order_status": None if order_id is None else self.order_status(order_id)[0],
            "replayed": replayed,
        }

    def release_hold(self, hold_id: int, seen: Answer) -> Answer:
        if hold_id not in self.holds:
            return "SA003"
        status = self.hold_status(hold_id)
        if status in ("expired", "ordered"):
            return {"expired": "SA004", "ordered": "SA006"}[status]
        self.holds[hold_id] = replace(self.holds[hold_id], status="released")
        return {"hold_id": hold_id, "status": "released"}

    def create_order(self, hold_id: int, key: str | None, seen: Answer, left: Collection[str] = ()) -> Answer:
        replayed = key in self.order_keys
        if replayed:
            order_id = self.order_keys[key]
            if self.orders[order_id].hold_id != hold_id:
                return "SA008"
        elif hold_id not in self.holds:
            return "SA003"
        elif (status := self.hold_status(hold_id)) != "active":
            return {"expired": "SA004", "released": "SA005", "ordered": "SA006"}[status]
        else:
            order_id = new_id(seen, "order_id", self.orders)
            hold = self.holds[hold_id]
            self.holds[hold_id] = replace(hold, status="ordered")
            self.orders[order_id] = Order(hold_id, hold.product_id, hold.qty, self.now + self.order_ticks)
            if key is not None:
                self.order_keys[key] = order_id
            of_it = [k for k, said in self.payments.items() if said.order_id == order_id and k not in left]
            self.end_waits(*of_it)
            for stored in of_it:
                said = self.payments.get(stored)
                if said is not None and said.result == "stored":
                    result, order_status = self.settle(said)
                    self.payments[stored] = replace(said, result=result, order_status=order_status)
        order = self.orders[order_id]
        return {
            "order_id": order_id,
            "status": self.order_status(order_id)[0],
            "amount": order.amount,
            "currency": CURRENCY,
            "replayed": replayed,
        }

    def apply_payment(
        self,
        key: str,
        order_id: int,
        word: str,
        amount: str | None,
        currency: str | None,
        seen: Answer,
        left: Collection[str] = (),
    ) -> Answer:
        self.end_waits(key)
        fresh = Payment(order_id, word, amount, currency, self.now, self.now + self.keep_ticks, "stored")
        replayed = key in self.payments
        if replayed:
            if self.payments[key].body != fresh.body:
                return "SA008"
        elif order_id in self.orders:
            result, order_status = self.settle(fresh)
            self.payments[key] = replace(fresh, result=result, order_status=order_status)
        else:
            if len(self.inbox()) + len(self.over()) >= self.inbox_limit:
                self.end_waits(*(self.over().keys() - left))
            if len(self.inbox()) >= self.inbox_limit:
                return "SA011"
            self.payments[key] = fresh
        said = self.payments[key]
        return {
            "order_id": order_id,
            "status": said.order_status,
            "result": said.result,
            "replayed": replayed,
        }

    def settle(self, said: Payment) -> tuple[str, str]:
        """Section 4 of the contract: the result, and the order's status after it."""
        order = self.orders[said.order_id]
        overdue = self.is_overdue(order)
        mismatch = (said.amount or order.amount, said.currency or CURRENCY) != (order.amount, CURRENCY)
        revivable = overdue or order.cancel_reason in ("payment_failed", "payment_overdue")
        if mismatch:
            result = "amount_mismatch"
        elif said.word != "success":
            result = "applied" if order.status == "pending_payment" and not overdue else "no_change"
            if result == "applied":
                order = replace(order, status="cancelled", cancel_reason=f"payment_{said.word}")
        elif order.status == "pending_payment" and not overdue:
            result = "applied"
            order = replace(order, status="paid")
        elif revivable and order.qty <= self.available(order.product_id):
            result = "applied"
            order = replace(order, status="paid", cancel_reason=None)
        else:
            result = "refund_due"
            if overdue:
                order = replace(order, status="cancelled", cancel_reason="payment_overdue")
        self.orders[said.order_id] = order
        return result, self.order_status(said.order_id)[0]

    def adjust_stock(self, product_id: int, delta: int, seen: Answer) -> Answer:
        if delta == 0:
            return "SA009"
        if product_id not in self.totals:
            return "SA001"
        if self.available(product_id) + delta < 0:
            return "SA010"
        self.totals[product_id] += delta
        return {
            "product_id": product_id,
            "total_stock": self.totals[product_id],
            "available_stock": self.available(product_id),
        }

    def change_settings(self, keep_ticks: int, seen: Answer, left: Collection[str] = ()) -> Answer:
        """A shorter wait is the wait of what is stored already, too; a longer one only of what comes."""
        self.keep_ticks = keep_ticks
        for key in self.shortened_by(keep_ticks):
            if key not in left:
                said = self.payments[key]
                self.payments[key] = replace(said, waits_until=said.received_at + keep_ticks)
        return {}

    def shortened_by(self, keep_ticks: int) -> list[str]:
        """The stored webhooks whose wait is longer than this."""
        return [
            key
            for key, said in self.payments.items()
            if said.result == "stored" and said.waits_until > said.received_at + keep_ticks
        ]

    # --- sweeping ---

    def inbox(self) -> list[str]:
        return [key for key in self.payments if self.result(key) == "stored"]

    def end_waits(self, *keys: str) -> None:
        """Of those of these webhooks that have waited long enough, a captured payment becomes a refund; the
        others go, and their keys are free."""
        for key in keys:
            match self.over().get(key):
                case "refund_due":
                    self.payments[key] = replace(self.payments[key], result="refund_due")
                case "expired":
                    del self.payments[key]

    def overdue_orders(self) -> list[int]:
        return [order_id for order_id, order in self.orders.items() if self.is_overdue(order)]

    def mark_overdue(self, order_ids: Iterable[int]) -> None:
        for order_id in order_ids:
            order = self.orders[order_id]
            self.orders[order_id] = replace(order, status="cancelled", cancel_reason="payment_overdue")

    def lapsed_holds(self) -> list[int]:
        return [hold_id for hold_id, hold in self.holds.items() if self.hold_status(hold_id) != hold.status]

    def mark_expired(self, hold_ids: Iterable[int]) -> None:
        for hold_id in hold_ids:
            self.holds[hold_id] = replace(self.holds[hold_id], status="expired")

    def expire_due(self, limit: int, seen: Answer) -> Answer:
        """A sweep with nobody beside it and a limit that nothing reaches; how many it marked."""
        lapsed, overdue = self.lapsed_holds(), self.overdue_orders()
        self.mark_expired(lapsed)
        self.mark_overdue(overdue)
        swept = len(lapsed) + len(overdue) + len(self.over())
        self.end_waits(*self.over())
        return {"expire_due": swept}

    def finished_orders(self) -> list[int]:
        """Marked cancelled, with no captured payment, and no webhook that is still to be ended."""
        kept = {said.order_id for said in self.payments.values() if said.word == "success"}
        kept |= {said.order_id for said in self.payments.values() if said.result == "stored"}
        return [
            order_id
            for order_id, order in self.orders.items()
            if order.status == "cancelled" and order_id not in kept
        ]

    def finished_holds(self) -> list[int]:
        """Released, or marked expired."""
        return [hold_id for hold_id, hold in self.holds.items() if hold.status in ("expired", "released")]

    def purge(self, seen: Answer, left: Collection[int] = ()) -> Answer:
        """Remove what is finished, however young; an id or a key of it is unknown again."""
        orders = [order_id for order_id in self.finished_orders() if order_id not in left]
        payments = [key for key, said in self.payments.items() if said.order_id in orders]
        holds = [hold_id for hold_id in self.finished_holds() if hold_id not in left]
        holds += [self.orders[order_id].hold_id for order_id in orders]
        for key in payments:
            del self.payments[key]
        for order_id in orders:
            del self.orders[order_id]
        for hold_id in holds:
            del self.holds[hold_id]
        self.order_keys = {
            key: order_id for key, order_id in self.order_keys.items() if order_id in self.orders
        }
        self.hold_keys = {key: hold_id for key, hold_id in self.hold_keys.items() if hold_id in self.holds}
        return {"orders": len(orders), "payments": len(payments), "holds": len(holds)}


def new_id(seen: Answer, name: str, known: Collection[int]) -> int:
    """The id the database has given; one that cannot be if it gave none, or one there was before."""
    chosen = seen.get(name) if isinstance(seen, dict) else None
    return -1 - len(known) if chosen is None or chosen in known else chosen
