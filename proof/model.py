"""The contract as a model in plain Python, written from the contract and not from the SQL.

Time is counted in ticks and only advances by `tick()`. The database chooses new ids, so a request comes with
the response that was observed, and only a new id is taken from it.

A response is a dictionary of what the function returns (without times), or the SQLSTATE of its refusal. The
argument `skipped` has what other transactions have locked, and a function therefore skips.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field, replace
from typing import Any, overload

Response = dict[str, Any] | str

PRICE = 99
"""of a new product"""
CURRENCY = "USD"


@dataclass(frozen=True)
class Terms:
    """Of a product; in ticks."""

    max_per_buyer: int | None = None
    limit_group: str | None = None
    max_per_hold: int | None = None
    starts_at: int | None = None
    ends_at: int | None = None
    paused: bool = False
    cancelled: bool = False


@dataclass(frozen=True)
class Hold:
    product_id: int
    qty: int
    price: int
    lapses_at: int
    status: str = "active"
    buyer: str | None = None
    extensions: int = 0


@dataclass(frozen=True)
class Order:
    hold_id: int
    product_id: int
    qty: int
    price: int
    due_at: int
    status: str = "pending_payment"
    cancel_reason: str | None = None
    buyer: str | None = None

    @property
    def amount(self) -> str:
        return money(self.qty * self.price)


@dataclass(frozen=True)
class Payment:
    order_id: int
    status: str
    amount: str | None
    currency: str | None
    received_at: int
    waits_until: int
    result: str
    order_status: str | None = None
    reason: str | None = None
    """why it became due for a refund when it was settled"""

    @property
    def body(self) -> tuple:
        return self.order_id, self.status, self.amount, self.currency


@dataclass(frozen=True)
class Refund:
    """One attempt to return money of a payment, which may be still to come.

    :param amount: None: what is left when the payment comes
    :param leased_until: for how long a request is one worker's
    """

    payment_key: str
    amount: int | None
    currency: str | None
    kind: str
    status: str
    leased_until: int = 0


@dataclass
class Model:
    """All state: dictionaries of immutable records, cheap to copy.

    :param hold_ticks: how long a hold lasts
    :param order_ticks: how long an order awaits payment
    :param keep_ticks: how long a new webhook waits for its order
    """

    hold_ticks: int = 3
    order_ticks: int = 7
    keep_ticks: int = 12
    extension_ticks: int = 2
    max_extensions: int = 1
    inbox_limit: int = 10_000
    lease_ticks: int = 1  # 5 minutes, less than a tick
    now: int = 0
    totals: dict[int, int] = field(default_factory=dict)
    tests: set[int] = field(default_factory=set)  # the test products
    prices: dict[int, int] = field(default_factory=dict)  # of products whose price was changed
    terms: dict[int, Terms] = field(default_factory=dict)  # of products that have any
    holds: dict[int, Hold] = field(default_factory=dict)
    orders: dict[int, Order] = field(default_factory=dict)
    payments: dict[str, Payment] = field(default_factory=dict)  # in order of arrival
    refunds: dict[str, Refund] = field(default_factory=dict)
    hold_keys: dict[str, int] = field(default_factory=dict)
    order_keys: dict[str, int] = field(default_factory=dict)
    adjustments: dict[str, tuple[tuple, Response]] = field(default_factory=dict)  # arguments, response

    def copy(self) -> "Model":
        return replace(
            self,
            totals=dict(self.totals),
            tests=set(self.tests),
            prices=dict(self.prices),
            terms=dict(self.terms),
            holds=dict(self.holds),
            orders=dict(self.orders),
            payments=dict(self.payments),
            refunds=dict(self.refunds),
            hold_keys=dict(self.hold_keys),
            order_keys=dict(self.order_keys),
            adjustments=dict(self.adjustments),
        )

    def tick(self, ticks: int) -> None:
        self.now += ticks

    # --- the state at this instant ---

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

    def price(self, product_id: int) -> int:
        return self.prices.get(product_id, PRICE)

    def terms_of(self, product_id: int) -> Terms:
        return self.terms.get(product_id, Terms())

    def sale_status(self, product_id: int) -> str:
        terms = self.terms_of(product_id)
        if terms.cancelled:
            return "cancelled"
        if terms.ends_at is not None and terms.ends_at <= self.now:
            return "ended"
        if terms.starts_at is not None and terms.starts_at > self.now:
            return "scheduled"
        return "paused" if terms.paused else "open"

    def scope(self, product_id: int) -> str:
        """What the product's units count together with."""
        group = self.terms_of(product_id).limit_group
        return f"product {product_id}" if group is None else f"group {group}"

    def taken(self, scope: str, buyer: str | None) -> int:
        """What the buyer has: in active holds, pending and paid orders."""
        holds = sum(
            hold.qty
            for hold_id, hold in self.holds.items()
            if (self.scope(hold.product_id), hold.buyer) == (scope, buyer)
            and self.hold_status(hold_id) == "active"
        )
        return holds + sum(
            order.qty
            for order_id, order in self.orders.items()
            if (self.scope(order.product_id), order.buyer) == (scope, buyer)
            and self.order_status(order_id)[0] != "cancelled"
        )

    def exceeds_limit(self, product_id: int, buyer: str | None, qty: int) -> bool:
        limit = self.terms_of(product_id).max_per_buyer
        return (
            limit is not None
            and buyer is not None
            and qty > limit - self.taken(self.scope(product_id), buyer)
        )

    def claimed(self) -> dict[str, int]:
        """By scope and buyer, where a product has a limit or a group."""
        buyers = {hold.buyer for hold in self.holds.values()} - {None}
        limited = [
            product_id
            for product_id, terms in self.terms.items()
            if terms.max_per_buyer is not None or terms.limit_group is not None
        ]
        units = {
            f"{self.scope(product_id)} {buyer}": self.taken(self.scope(product_id), buyer)
            for product_id in limited
            for buyer in buyers
        }
        return {name: taken for name, taken in units.items() if taken}

    def available(self, product_id: int) -> int:
        return self.units(product_id)[0]

    def is_wait_over(self, payment: Payment) -> bool:
        """Whether a stored webhook's deadline has passed. It is still counted in the inbox."""
        return payment.result == "stored" and payment.waits_until <= self.now

    def ended_waits(self) -> dict[str, str]:
        """The results of the stored webhooks whose wait has ended."""
        return {
            key: "refund_due" if payment.status == "success" else "expired"
            for key, payment in self.payments.items()
            if self.is_wait_over(payment)
        }

    def result(self, key: str) -> str:
        """The result that a webhook reads as."""
        return self.ended_waits().get(key, self.payments[key].result)

    def is_of_a_test(self, payment: Payment) -> bool:
        order = self.orders.get(payment.order_id)
        return order is not None and order.product_id in self.tests

    def owed(self) -> list[str]:
        """The captured payments that pay no order, or one that the shop has cancelled since, with what was
        refunded of them already."""
        owed = ("refund_due", "amount_mismatch")
        return [
            key
            for key, payment in self.payments.items()
            if payment.status == "success"
            and (
                self.result(key) in owed
                or (self.result(key) == "applied" and self.orders[payment.order_id].status == "cancelled")
            )
        ]

    def refunds_due(self) -> list[str]:
        """Those of which something is left, and that are not for orders of test products."""
        return [key for key in self.owed() if self.is_due(key) and not self.is_of_a_test(self.payments[key])]

    def is_due(self, key: str) -> bool:
        """Whether something is left of a payment that is owed; of a payment of nothing, nothing is. Where its
        amount is not known, any refund is the whole."""
        refunded, captured = self.refunded(key), self.captured_amount(key)
        return captured != 0 and (refunded == 0 or refunded < (captured or 0))

    def captured_amount(self, key: str) -> int | None:
        """None if it is not known: a payment without an amount is of its order's, in its currency only."""
        payment = self.payments[key]
        if payment.amount is not None:
            return int(payment.amount.removesuffix(".00"))
        order = self.orders.get(payment.order_id)
        return order.qty * order.price if order and payment.currency in (None, CURRENCY) else None

    def currency_of(self, key: str) -> str | None:
        payment = self.payments[key]
        return payment.currency or (CURRENCY if payment.order_id in self.orders else None)

    def refunded(self, key: str) -> int:
        return sum(
            refund.amount or 0
            for refund in self.refunds.values()
            if refund.payment_key == key and refund.status == "done"
        )

    def refundable(self, key: str) -> int | None:
        captured = self.captured_amount(key)
        return None if captured is None else max(captured - self.refunded(key), 0)

    def refund_reason(self, key: str) -> str:
        """Of a payment that is owed."""
        if self.result(key) == "applied":
            return "order_cancelled"
        return self.payments[key].reason or "order_unknown"

    def awaited(self, refund: Refund) -> bool:
        """Whether a refund waits for its payment."""
        payment = self.payments.get(refund.payment_key)
        return payment is None or payment.status != "success"

    def money(self) -> dict[str, tuple[int, int, int, int]]:
        """captured, kept by paid orders, due, refunded, by currency; where the amount is known"""
        sums: dict[str, list[int]] = {}
        owed = self.owed()
        for key in self.captured():
            captured = self.captured_amount(key)
            if captured is not None:
                part = sums.setdefault(str(self.currency_of(key)), [0, 0, 0, 0])
                part[0] += captured
                part[2] += captured - self.refunded(key) if key in owed else 0
                part[3] += self.refunded(key)
                if key not in owed:
                    part[1] -= self.refunded(key)
        for order in self.orders.values():
            if order.status == "paid" and order.price:
                sums.setdefault(CURRENCY, [0, 0, 0, 0])[1] += order.qty * order.price
        return {currency: (part[0], part[1], part[2], part[3]) for currency, part in sums.items()}

    def money_adds_up(self) -> bool:
        return all(
            captured == kept + due + refunded for captured, kept, due, refunded in self.money().values()
        )

    def captured(self) -> list[str]:
        """Captured payments that do not wait for their order; of an order of nothing, nothing is captured."""
        return [
            key
            for key, payment in self.payments.items()
            if payment.status == "success" and self.result(key) not in ("stored", "no_change")
        ]

    def state(self) -> dict[str, dict]:
        """As `tables.state()` reads it."""
        return {
            "units": {str(product_id): list(self.units(product_id)) for product_id in self.totals},
            "prices": {str(product_id): money(self.price(product_id)) for product_id in self.totals},
            "terms": {
                str(product_id): [
                    self.sale_status(product_id),
                    self.terms_of(product_id).max_per_buyer,
                    self.terms_of(product_id).limit_group,
                    self.terms_of(product_id).max_per_hold,
                ]
                for product_id in self.totals
            },
            "claimed": self.claimed(),
            "holds": {str(hold_id): self.hold_status(hold_id) for hold_id in self.holds},
            "prices_held": {str(hold_id): money(hold.price) for hold_id, hold in self.holds.items()},
            "adjustments": {
                str(key): response["total_stock"] for key, (_, response) in self.adjustments.items()
            },
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
            "unswept": self.ended_waits(),
            "payments": {
                key: [self.result(key), payment.order_status]
                for key, payment in self.payments.items()
                if self.result(key) != "expired"
            },
            "inbox": {key: place for place, key in enumerate(self.inbox(), 1)},
            "ticks_left": {key: self.payments[key].waits_until - self.now for key in self.inbox()},
            "settings": {"inbox_keep": self.keep_ticks},
            "refunds_due": {
                key: [
                    self.payments[key].order_id,
                    None if self.captured_amount(key) is None else money(self.refundable(key)),
                ]
                for key in self.refunds_due()
            },
            "refunds": {
                key: [
                    refund.payment_key,
                    money(refund.amount),
                    refund.currency,
                    refund.kind,
                    refund.status,
                    refund.status == "requested" and refund.leased_until > self.now,
                ]
                for key, refund in self.refunds.items()
            },
            "money": {currency: list(map(money, part)) for currency, part in self.money().items()},
            "wrong": {},
        }

    # --- requests ---

    def place_hold(
        self, product_id: int, qty: int, key: str | None, buyer: str | None, observed: Response
    ) -> Response:
        replayed = key in self.hold_keys
        if replayed:
            hold_id = self.hold_keys[key]
            hold = self.holds[hold_id]
            if (hold.product_id, hold.qty, hold.buyer) != (product_id, qty, buyer):
                return "SA008"
        elif qty < 1:
            return "SA009"
        elif product_id not in self.totals:
            return "SA001"
        elif (refusal := self.refused_by_terms(product_id, qty, buyer)) is not None:
            return refusal
        elif qty > self.available(product_id):
            return "SA002"
        else:
            hold_id = new_id(observed, "hold_id", self.holds)
            self.holds[hold_id] = Hold(
                product_id, qty, self.price(product_id), self.now + self.hold_ticks, buyer=buyer
            )
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

    def refused_by_terms(self, product_id: int, qty: int, buyer: str | None) -> str | None:
        """Section 7 of the contract. A product that is sold out is that, whatever the buyer has."""
        status, terms = self.sale_status(product_id), self.terms_of(product_id)
        if status != "open":
            return {"scheduled": "SA012", "ended": "SA013", "paused": "SA014", "cancelled": "SA015"}[status]
        if self.available(product_id) <= 0:
            return "SA002"
        if terms.max_per_buyer is not None and buyer is None:
            return "SA016"
        if terms.max_per_hold is not None and qty > terms.max_per_hold:
            return "SA017"
        return "SA017" if self.exceeds_limit(product_id, buyer, qty) else None

    def extend_hold(self, hold_id: int, seen_at: str, seen: int, observed: Response) -> Response:
        if hold_id not in self.holds:
            return "SA003"
        if (status := self.hold_status(hold_id)) != "active":
            return {"expired": "SA004", "released": "SA005", "ordered": "SA006"}[status]
        hold = self.holds[hold_id]
        if hold.lapses_at > seen:
            return {"replayed": True}
        if hold.lapses_at < seen or hold.extensions >= self.max_extensions:
            return "SA018"
        self.holds[hold_id] = replace(
            hold, lapses_at=hold.lapses_at + self.extension_ticks, extensions=hold.extensions + 1
        )
        return {"replayed": False}

    def release_hold(self, hold_id: int, observed: Response) -> Response:
        if hold_id not in self.holds:
            return "SA003"
        status = self.hold_status(hold_id)
        if status in ("expired", "ordered"):
            return {"expired": "SA004", "ordered": "SA006"}[status]
        self.holds[hold_id] = replace(self.holds[hold_id], status="released")
        return {"hold_id": hold_id, "status": "released"}

    def create_order(
        self, hold_id: int, key: str | None, observed: Response, skipped: Collection[str] = ()
    ) -> Response:
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
            order_id = new_id(observed, "order_id", self.orders)
            hold = self.holds[hold_id]
            self.holds[hold_id] = replace(hold, status="ordered")
            self.orders[order_id] = Order(
                hold_id, hold.product_id, hold.qty, hold.price, self.now + self.order_ticks,
                "pending_payment" if hold.price else "paid", buyer=hold.buyer,
            )  # fmt: skip
            if key is not None:
                self.order_keys[key] = order_id
            of_it = [
                k for k, payment in self.payments.items() if payment.order_id == order_id and k not in skipped
            ]
            self.end_waits(*of_it)
            for stored in of_it:
                payment = self.payments.get(stored)
                if payment is not None and payment.result == "stored":
                    self.payments[stored] = self.settled(payment)
        order = self.orders[order_id]
        return {
            "order_id": order_id,
            "status": self.order_status(order_id)[0],
            "amount": order.amount,
            "currency": CURRENCY,
            "replayed": replayed,
        }

    def abandon_order(self, order_id: int, hold_id: int, observed: Response) -> Response:
        if order_id not in self.orders or self.orders[order_id].hold_id != hold_id:
            return "SA007"
        status, _ = self.order_status(order_id)
        if status == "paid":
            return "SA019"
        if status == "pending_payment":
            self.orders[order_id] = replace(
                self.orders[order_id], status="cancelled", cancel_reason="buyer_cancelled"
            )
        return {"order_id": order_id, "status": "cancelled"}

    def cancel_order(self, order_id: int, restock: bool, observed: Response) -> Response:
        """For the shop: what has paid it is due back."""
        if order_id not in self.orders:
            return "SA007"
        order, (status, reason) = self.orders[order_id], self.order_status(order_id)
        if status != "cancelled" and not restock:
            self.totals[order.product_id] -= order.qty
        if status != "cancelled" or reason in ("payment_failed", "payment_overdue"):
            self.orders[order_id] = replace(order, status="cancelled", cancel_reason="shop_cancelled")
        return {
            "order_id": order_id,
            "status": "cancelled",
            "cancel_reason": self.orders[order_id].cancel_reason,
        }

    def apply_payment(
        self,
        key: str,
        order_id: int,
        status: str,
        amount: str | None,
        currency: str | None,
        observed: Response,
        skipped: Collection[str] = (),
    ) -> Response:
        self.end_waits(key)
        fresh = Payment(order_id, status, amount, currency, self.now, self.now + self.keep_ticks, "stored")
        replayed = key in self.payments
        if replayed:
            if self.payments[key].body != fresh.body:
                return "SA008"
        elif status == "declined" and order_id not in self.orders:
            return {"order_id": order_id, "status": None, "result": "no_change", "replayed": False}
        elif order_id in self.orders:
            self.payments[key] = self.settled(fresh)
            self.settle_early_refunds(key)
        else:
            if len(self.inbox()) + len(self.ended_waits()) >= self.inbox_limit:
                self.end_waits(*(self.ended_waits().keys() - skipped))
            if len(self.inbox()) >= self.inbox_limit:
                return "SA011"
            self.payments[key] = fresh
            self.settle_early_refunds(key)
        payment = self.payments[key]
        return {
            "order_id": order_id,
            "status": payment.order_status,
            "result": payment.result,
            "replayed": replayed,
        }

    def settled(self, payment: Payment) -> Payment:
        """Section 4 of the contract."""
        order = self.orders[payment.order_id]
        overdue = self.is_overdue(order)
        reason = None
        mismatch = (payment.amount or order.amount, payment.currency or CURRENCY) != (order.amount, CURRENCY)
        revivable = overdue or order.cancel_reason in ("payment_failed", "payment_overdue")
        if mismatch:
            result = reason = "amount_mismatch"
        elif payment.status == "declined":
            result = "no_change"
        elif payment.status != "success":
            result = "applied" if order.status == "pending_payment" and not overdue else "no_change"
            if result == "applied":
                order = replace(order, status="cancelled", cancel_reason=f"payment_{payment.status}")
        elif order.status == "pending_payment" and not overdue:
            result = "applied"
            order = replace(order, status="paid")
        elif not order.price:
            result = "no_change"
        elif order.status == "paid":
            result, reason = "refund_due", "paid_twice"
        else:
            if not revivable:
                reason = "order_cancelled"
            elif order.qty > self.available(order.product_id):
                reason = "sold_out"
            elif self.exceeds_limit(order.product_id, order.buyer, order.qty):
                reason = "limit_reached"
            result = "refund_due" if reason else "applied"
            if not reason:
                order = replace(order, status="paid", cancel_reason=None)
            elif overdue:
                order = replace(order, status="cancelled", cancel_reason="payment_overdue")
        self.orders[payment.order_id] = order
        return replace(
            payment,
            result=result,
            order_status=self.order_status(payment.order_id)[0],
            reason=reason if payment.status == "success" else None,
        )

    # --- money back: section 9 of the contract ---

    def settle_early_refunds(self, key: str) -> None:
        """Refunds that came before the payment, which has just been recorded."""
        payment = self.payments[key]
        if payment.status != "success":
            return
        waiting = {k: refund for k, refund in self.refunds.items() if refund.payment_key == key}
        captured = self.captured_amount(key)
        left = None if captured is None else captured - self.refunded(key)
        for refund_key, refund in sorted(waiting.items()):
            amount = refund.amount
            if amount is None and refund.status == "done" and left is not None and left > 0:
                amount, left = left, 0
            self.refunds[refund_key] = replace(refund, amount=amount, currency=self.currency_of(key))

    def begin_refunds(
        self, payment_keys: Collection[str] | None, observed: Response, skipped: Collection[str] = ()
    ) -> Response:
        """Hands out what is due, but for what another worker has."""
        self.end_waits(*(self.ended_waits().keys() - skipped))
        handed = {}
        for key in self.to_refund(payment_keys):
            if key in skipped:
                continue
            known = next((k for k in self.refunds if self.is_requested(k, key)), None)
            if known is None:
                chosen = observed.get(key) if isinstance(observed, dict) else None
                known = chosen[0] if chosen and chosen[0] not in self.refunds else f"none for {key}"
                left = self.refundable(key)
                self.refunds[known] = Refund(key, left, self.currency_of(key), "refund", "requested")
            refund = replace(self.refunds[known], leased_until=self.now + self.lease_ticks)
            self.refunds[known] = refund
            order_id, reason = self.payments[key].order_id, self.refund_reason(key)
            handed[key] = [known, order_id, money(refund.amount), self.currency_of(key), reason]
        return handed

    def is_requested(self, refund_key: str, payment_key: str) -> bool:
        refund = self.refunds[refund_key]
        return (refund.payment_key, refund.status) == (payment_key, "requested")

    def to_refund(self, payment_keys: Collection[str] | None) -> list[str]:
        """What a worker can take now, of payments that are recorded as due. Those for test products only if
        they are named."""
        leased = {
            refund.payment_key
            for refund in self.refunds.values()
            if refund.status == "requested" and refund.leased_until > self.now
        }
        return [
            key
            for key in self.owed()
            if key not in leased
            and self.payments[key].result != "stored"
            and (self.refundable(key) or 0) > 0
            and (not self.is_of_a_test(self.payments[key]) if payment_keys is None else key in payment_keys)
        ]

    def record_refund(
        self,
        refund_key: str,
        payment_key: str,
        amount: int | None,
        status: str,
        kind: str,
        observed: Response,
    ) -> Response:
        """Of a payment that is unknown it is kept until that comes."""
        payment = self.payments.get(payment_key)
        if payment is not None and payment.status == "success":
            self.end_waits(payment_key)
        if (amount is None and kind != "void") or (amount is not None and amount <= 0):
            return "SA009"
        if payment is not None and payment.status != "success":
            return "SA020"
        refundable = None if payment is None else self.refundable(payment_key)
        known = self.refunds.get(refund_key)
        if amount is None:
            amount = refundable if known is None or known.amount is None else known.amount
        replayed = False
        if known is not None and (
            known.payment_key != payment_key
            or (known.amount is not None and amount is not None and known.amount != amount)
        ):
            return "SA008"
        if known is not None and known.status in (status, "failed"):
            replayed = True
        elif (amount is None and payment is not None) or (amount == 0 and status == "failed"):
            return "SA009"
        elif (
            status == "done"
            and kind != "chargeback"
            and (amount == 0 or (refundable is not None and amount is not None and amount > refundable))
        ):
            return "SA021"
        elif known is not None:
            self.refunds[refund_key] = replace(known, status=status, kind=kind)
        else:
            currency = None if payment is None else self.currency_of(payment_key)
            self.refunds[refund_key] = Refund(payment_key, amount, currency, kind, status)
        response = {"payment_key": payment_key, "refunded": None, "still_due": None, "replayed": replayed}
        if payment is not None:
            refunded, left = self.refunded(payment_key), self.refundable(payment_key)
            response["refunded"] = money(refunded)
            if payment_key not in self.owed():
                response["still_due"] = money(0)
            else:
                response["still_due"] = money(0 if left is None and refunded else left)
        return response

    def sale(self, product_id: int) -> Response:
        """What cancelling the sale would undo."""
        orders = {o: order for o, order in self.orders.items() if order.product_id == product_id}
        statuses = [self.order_status(order_id)[0] for order_id in orders]
        paying = [k for k, p in self.payments.items() if p.order_id in orders and self.pays(p)]
        return {
            "holds": len(self.active_holds(product_id)),
            "pending": statuses.count("pending_payment"),
            "paid": statuses.count("paid"),
            "refund_total": money(sum(self.refundable(key) or 0 for key in paying)),
            "currency": CURRENCY,
        }

    def pays(self, payment: Payment) -> bool:
        applied = (payment.status, payment.result) == ("success", "applied")
        return applied and self.orders[payment.order_id].status == "paid"

    def active_holds(self, product_id: int) -> list[int]:
        return [
            hold_id
            for hold_id, hold in self.holds.items()
            if hold.product_id == product_id and self.hold_status(hold_id) == "active"
        ]

    def preview_cancel_sale(self, product_id: int, observed: Response) -> Response:
        return self.sale(product_id) if product_id in self.totals else "SA001"

    def cancel_sale(self, product_id: int, refund_total: int, observed: Response) -> Response:
        """For good; nothing is done if another total is to be refunded."""
        if product_id not in self.totals:
            return "SA001"
        response = self.sale(product_id)
        terms = self.terms_of(product_id)
        if terms.cancelled:
            return response
        if response["refund_total"] != money(refund_total):
            return "SA022"
        self.terms[product_id] = replace(terms, cancelled=True)
        for hold_id in self.active_holds(product_id):
            self.holds[hold_id] = replace(self.holds[hold_id], status="released")
        for order_id, order in self.orders.items():
            revivable = order.cancel_reason in (None, "payment_failed", "payment_overdue")
            if order.product_id == product_id and revivable:
                self.orders[order_id] = replace(order, status="cancelled", cancel_reason="sale_cancelled")
        return response

    def adjust_stock(self, product_id: int, delta: int, key: str | None, observed: Response) -> Response:
        if key in self.adjustments:
            arguments, response = self.adjustments[key]
            return response if arguments == (product_id, delta) else "SA008"
        if delta == 0:
            return "SA009"
        if product_id not in self.totals:
            return "SA001"
        if self.available(product_id) + delta < 0:
            return "SA010"
        self.totals[product_id] += delta
        response = {
            "product_id": product_id,
            "total_stock": self.totals[product_id],
            "available_stock": self.available(product_id),
        }
        if key is not None:
            self.adjustments[key] = (product_id, delta), response
        return response

    def change_price(self, product_id: int, price: int, observed: Response) -> Response:
        """For the holds that are placed from now on."""
        if product_id not in self.totals:
            return "SA001"
        self.prices[product_id] = price
        return {"product_id": product_id, "price": money(price), "currency": CURRENCY}

    def change_terms(
        self,
        product_id: int,
        max_per_buyer: int | None,
        limit_group: str | None,
        max_per_hold: int | None,
        starts_in: int | str | None,
        ends_in: int | str | None,
        observed: Response,
    ) -> Response:
        """None leaves a term alone; 0, '' and 'none' lift it. Start and end are changed together."""
        if product_id not in self.totals:
            return "SA001"
        terms = self.terms_of(product_id)
        if max_per_buyer is not None:
            terms = replace(terms, max_per_buyer=max_per_buyer or None)
        if limit_group is not None:
            terms = replace(terms, limit_group=limit_group or None)
        if max_per_hold is not None:
            terms = replace(terms, max_per_hold=max_per_hold or None)
        if starts_in is not None and ends_in is not None:
            terms = replace(
                terms,
                starts_at=None if isinstance(starts_in, str) else self.now + starts_in,
                ends_at=None if isinstance(ends_in, str) else self.now + ends_in,
            )
        if terms.starts_at is not None and terms.ends_at is not None and terms.starts_at >= terms.ends_at:
            return "SA009"
        self.terms[product_id] = terms
        return self.terms_response(product_id)

    def pause_sale(self, product_id: int, observed: Response) -> Response:
        return self.set_paused(product_id, True)

    def resume_sale(self, product_id: int, observed: Response) -> Response:
        return self.set_paused(product_id, False)

    def set_paused(self, product_id: int, paused: bool) -> Response:
        if product_id not in self.totals:
            return "SA001"
        self.terms[product_id] = replace(self.terms_of(product_id), paused=paused)
        return self.terms_response(product_id)

    def terms_response(self, product_id: int) -> Response:
        terms = self.terms_of(product_id)
        return {
            "product_id": product_id,
            "max_per_buyer": terms.max_per_buyer,
            "limit_group": terms.limit_group,
            "hold_time": None,
            "payment_window": None,
            "listed": True,
            "max_per_hold": terms.max_per_hold,
            "sale_status": self.sale_status(product_id),
        }

    def change_settings(self, keep_ticks: int, observed: Response, skipped: Collection[str] = ()) -> Response:
        """A shorter wait also applies to stored webhooks; a longer one only to new ones."""
        self.keep_ticks = keep_ticks
        for key in self.shortened_by(keep_ticks):
            if key not in skipped:
                payment = self.payments[key]
                self.payments[key] = replace(payment, waits_until=payment.received_at + keep_ticks)
        return {}

    def shortened_by(self, keep_ticks: int) -> list[str]:
        """The stored webhooks whose wait is longer than this."""
        return [
            key
            for key, payment in self.payments.items()
            if payment.result == "stored" and payment.waits_until > payment.received_at + keep_ticks
        ]

    # --- sweep and purge ---

    def inbox(self) -> list[str]:
        return [key for key in self.payments if self.result(key) == "stored"]

    def end_waits(self, *keys: str) -> None:
        """Of these webhooks, where the wait has ended, a captured payment becomes a refund; the others are
        deleted, and their keys are free."""
        for key in keys:
            match self.ended_waits().get(key):
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

    def expired_holds(self) -> list[int]:
        return [hold_id for hold_id, hold in self.holds.items() if self.hold_status(hold_id) != hold.status]

    def mark_expired(self, hold_ids: Iterable[int]) -> None:
        for hold_id in hold_ids:
            self.holds[hold_id] = replace(self.holds[hold_id], status="expired")

    def expire_due(self, limit: int, observed: Response) -> Response:
        """A sweep alone, below its limit. Returns how many it marked."""
        lapsed, overdue = self.expired_holds(), self.overdue_orders()
        self.mark_expired(lapsed)
        self.mark_overdue(overdue)
        swept = len(lapsed) + len(overdue) + len(self.ended_waits())
        self.end_waits(*self.ended_waits())
        return {"expire_due": swept}

    def finished_orders(self) -> list[int]:
        """Marked cancelled, without a captured payment and without a stored webhook."""
        kept = {payment.order_id for payment in self.payments.values() if payment.status == "success"}
        kept |= {payment.order_id for payment in self.payments.values() if payment.result == "stored"}
        return [
            order_id
            for order_id, order in self.orders.items()
            if order.status == "cancelled" and order_id not in kept
        ]

    def finished_holds(self) -> list[int]:
        """Released, or marked expired."""
        return [hold_id for hold_id, hold in self.holds.items() if hold.status in ("expired", "released")]

    def purge(self, observed: Response, skipped: Collection[int | str] = ()) -> Response:
        """Delete what is finished, of any age; its ids and keys are unknown again."""
        orders = [order_id for order_id in self.finished_orders() if order_id not in skipped]
        payments = [key for key, payment in self.payments.items() if payment.order_id in orders]
        holds = [hold_id for hold_id in self.finished_holds() if hold_id not in skipped]
        holds += [self.orders[order_id].hold_id for order_id in orders]
        adjustments = [key for key in self.adjustments if key not in skipped]
        refunds = [
            key
            for key, refund in self.refunds.items()
            if self.awaited(refund) and refund.payment_key not in skipped
        ]
        for key in refunds:
            del self.refunds[key]
        for key in payments:
            del self.payments[key]
        for key in adjustments:
            del self.adjustments[key]
        for order_id in orders:
            del self.orders[order_id]
        for hold_id in holds:
            del self.holds[hold_id]
        self.order_keys = {
            key: order_id for key, order_id in self.order_keys.items() if order_id in self.orders
        }
        self.hold_keys = {key: hold_id for key, hold_id in self.hold_keys.items() if hold_id in self.holds}
        return {
            "orders": len(orders),
            "payments": len(payments),
            "holds": len(holds),
            "operations": len(adjustments),
            "refunds": len(refunds),
        }

    def forget_tests(
        self, product_ids: Collection[int] | None, observed: Response, in_use: Collection[int] = ()
    ) -> Response:
        """Delete test products and all that was sold of them. Those `in_use` are withdrawn from sale instead.

        :param product_ids: None for all
        """
        if product_ids is not None and any(p in self.totals and p not in self.tests for p in product_ids):
            return "SA009"
        chosen = sorted(self.tests if product_ids is None else self.tests.intersection(product_ids))
        for product_id in chosen:
            if product_id in in_use:
                self.totals[product_id] -= self.available(product_id)
            else:
                self.delete_product(product_id)
        return {str(product_id): product_id not in in_use for product_id in chosen}

    def delete_product(self, product_id: int) -> None:
        orders = {o for o, order in self.orders.items() if order.product_id == product_id}
        captured = {k for k, p in self.payments.items() if p.order_id in orders and p.status == "success"}
        self.refunds = {k: refund for k, refund in self.refunds.items() if refund.payment_key not in captured}
        self.payments = {k: payment for k, payment in self.payments.items() if payment.order_id not in orders}
        self.orders = {o: order for o, order in self.orders.items() if o not in orders}
        self.holds = {h: hold for h, hold in self.holds.items() if hold.product_id != product_id}
        self.order_keys = {k: o for k, o in self.order_keys.items() if o in self.orders}
        self.hold_keys = {k: h for k, h in self.hold_keys.items() if h in self.holds}
        self.adjustments = {
            key: (arguments, response)
            for key, (arguments, response) in self.adjustments.items()
            if arguments[0] != product_id
        }
        self.prices.pop(product_id, None)
        self.tests.discard(product_id)
        del self.totals[product_id]


@overload
def money(amount: int) -> str: ...
@overload
def money(amount: None) -> None: ...
def money(amount: int | None) -> str | None:
    return None if amount is None else f"{amount}.00"


def new_id(observed: Response, name: str, known: Collection[int]) -> int:
    """The id that the database chose; an impossible one if it chose none, or a known one."""
    chosen = observed.get(name) if isinstance(observed, dict) else None
    return -1 - len(known) if chosen is None or chosen in known else chosen
