"""Replays the ledger event by event and compares its end with the tables."""

from collections import Counter
from collections.abc import Iterator

from proof.transactions.history import Subject, Violation
from proof.transactions.state import Row, State

HOLD_STATUSES = {"hold_placed": "active", "hold_released": "released", "hold_expired": "expired"}
PENDING = ("pending_payment", None)
PAID = ("paid", None)
PAYABLE = (("cancelled", "payment_failed"), ("cancelled", "payment_overdue"))
"""cancelled orders that a late payment pays, if there is stock"""


class Ledger:
    """The states of holds and orders, and the units of products, after each event.

    Units come back without an event at `expires_at` and `payment_due_at`, and may be sold again before
    `hold_expired` is written. What is available is therefore counted at the instant of the event.
    """

    def __init__(self, state: State) -> None:
        self.state = state
        self.all_holds = state.all_holds
        self.all_orders = state.all_orders
        self.holds: dict[int, str] = {}
        self.orders: dict[int, tuple[str, str | None]] = {}
        self.totals: Counter[int] = Counter()
        self.sums: Counter[int] = Counter()
        self.paid_by: Counter[str] = Counter()

    def violations(self) -> Iterator[Violation]:
        """Replay every event, then compare the end."""
        for event in self.state.ledger:
            problem = self.apply(event)
            if problem is None and event["available_delta"] < 0:
                left = self.available(event["product_id"], event["at"])
                problem = f"leaves {left} units available" if left < 0 else None
            if problem is not None:
                yield Violation("each event is legal", f"{problem}: {event}", _subjects(event))
        yield from self._compare_rows()
        yield from self._compare_payments()
        yield from self._compare_stock()

    def apply(self, event: Row) -> str | None:
        """Apply one event. Returns what is wrong with it."""
        product, delta = event["product_id"], event["available_delta"]
        if product is not None:
            self.sums[product] += delta
        match event["kind"]:
            case "product_created" | "stock_adjusted":
                self.totals[product] += delta
                return None
            case "payment_stored" | "refund_due" | "amount_mismatch":
                return "moves units" if delta else None
            case "hold_placed" | "hold_released" | "hold_expired":
                return self._apply_to_hold(event)
            case _:
                return self._apply_to_order(event)

    def available(self, product: int, now: float) -> int:
        """Total stock less what active holds and pending orders have at `now`, and paid orders have."""
        taken = sum(
            hold["qty"]
            for hold_id, hold in self.all_holds.items()
            if hold["product_id"] == product
            and self.holds.get(hold_id) == "active"
            and hold["expires_at"] > now
        )
        for order_id, order in self.all_orders.items():
            status = self.orders.get(order_id)
            if order["product_id"] == product and (
                status == PAID or (status == PENDING and order["payment_due_at"] > now)
            ):
                taken += order["qty"]
        return self.totals[product] - taken

    def _apply_to_hold(self, event: Row) -> str | None:
        hold_id, kind, delta = event["hold_id"], event["kind"], event["available_delta"]
        hold, before = self.all_holds.get(hold_id), self.holds.get(hold_id)
        if hold is None:
            return "names a hold that was never committed"
        self.holds[hold_id] = HOLD_STATUSES[kind]
        if kind == "hold_placed":
            legal = before is None and delta == -hold["qty"]
        else:
            legal = before == "active" and delta == hold["qty"]
        if kind == "hold_expired" and event["at"] < hold["expires_at"]:
            return "comes too early"
        return None if legal else f"follows {before}"

    def _apply_to_order(self, event: Row) -> str | None:
        order_id, kind, delta = event["order_id"], event["kind"], event["available_delta"]
        order, before = self.all_orders.get(order_id), self.orders.get(order_id)
        if order is None or order["hold_id"] != event["hold_id"]:
            return "names an order that was never committed"
        if kind == "order_created":
            legal = before is None and self.holds.get(event["hold_id"]) == "active" and delta == 0
            self.holds[event["hold_id"]] = "ordered"
            self.orders[order_id] = PENDING
        elif kind == "order_cancelled":
            reason = event["data"]["cancel_reason"]
            legal = before == PENDING and delta == order["qty"]
            self.orders[order_id] = ("cancelled", reason)
            if reason == "payment_overdue" and event["at"] < order["payment_due_at"]:
                return "comes too early"
        else:
            self.paid_by[event["payment_key"]] += 1
            legal = (before == PENDING and delta == 0) or (before in PAYABLE and delta == -order["qty"])
            self.orders[order_id] = PAID
        return None if legal else f"follows {before}"

    def _compare_rows(self) -> Iterator[Violation]:
        rule = "a row is in the state of its last event"
        for hold_id, hold in self.state.holds.items():
            if hold["status"] != self.holds.get(hold_id):
                yield Violation(rule, f"{hold}, {self.holds.get(hold_id)}", (("hold", hold_id),))
        for order_id, order in self.state.orders.items():
            if (order["status"], order["cancel_reason"]) != self.orders.get(order_id):
                yield Violation(rule, f"{order}, {self.orders.get(order_id)}", (("order", order_id),))

    def _compare_payments(self) -> Iterator[Violation]:
        paying = {
            key: row
            for key, row in self.state.payments.items()
            if row["status"] == "success" and row["result"] == "applied"
        }
        for key in paying.keys() | self.paid_by.keys():
            if key not in paying or self.paid_by[key] != 1:
                detail = f"{paying.get(key)}, {self.paid_by[key]} events"
                yield Violation("a payment pays in one event", detail, (("webhook", key),))

    def _compare_stock(self) -> Iterator[Violation]:
        carried = Counter()
        for event in self.state.removed["events"]:
            if event["product_id"] is not None:
                carried[event["product_id"]] += event["available_delta"]
        for product, stock in self.state.stock.items():
            expected = (self.totals[product], self.available(product, 0), carried[product])
            found = (stock["total_stock"], self.sums[product], self.state.carried.get(product, 0))
            if found != expected:
                detail = f"product {product}: total, available, carried are {found}, not {expected}"
                yield Violation("the ledger adds up", detail, (("product", product),))


def _subjects(event: Row) -> tuple[Subject, ...]:
    columns = {"hold": "hold_id", "order": "order_id", "webhook": "payment_key"}
    return tuple((kind, event[column]) for kind, column in columns.items() if event[column] is not None)
