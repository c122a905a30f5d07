"""A Hypothesis state machine: each request goes to the database and to the model, whose responses must agree.

Draws do not depend on responses, so that a run can be repeated although ids are random and concurrent calls
are not served in a fixed order: ids and keys are drawn as positions among the known ones.
"""

import sys
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import psycopg
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from proof.clock_shift import TICK, advance_clock
from proof.model import CURRENCY, PRICE, Model, Response
from proof.requests import LOCKED, Call, Request, execute, receive, send
from proof.serial_orders import expected, expected_of_scalar, explain
from proof.tables import EMPTY, state
from tests.support.sql_calls import change_settings, next_order_id

STOCK = "select id, available_stock, held, awaiting, paid from flashsale.get_stock(%s)"
CONNECTIONS = 5

pick = st.integers(0, 10**6)
maybe_key = st.one_of(st.none(), st.integers(0, 40))
statuses = st.sampled_from(["success", "success", "failed", "cancelled", "declined"])
amounts = st.sampled_from([None, None, None, "right", "wrong"])
currencies = st.sampled_from([None, None, None, CURRENCY, "EUR"])
buyers = st.sampled_from([None, "ann", "ann", "ann", "bob"])
windows = st.sampled_from(
    [(None, None)] * 10
    + [("none", "none")] * 6
    + [(2, "none"), ("none", 2), (1, 3), ("none", 0), (0, "none"), (3, 1)]
)
arguments = {
    "place_hold": st.tuples(pick, st.integers(0, 4), maybe_key, buyers),
    "release_hold": st.tuples(pick),
    "extend_hold": st.tuples(pick, st.sampled_from([0, 0, 0, -1, 1])),
    "abandon_order": st.tuples(pick),
    "create_order": st.tuples(pick, maybe_key),
    "apply_payment": st.tuples(st.integers(0, 60), pick, statuses, amounts, currencies),
    "adjust_stock": st.tuples(
        pick, st.one_of(st.integers(-3, 3), st.just("all that is available")), maybe_key
    ),
    "expire_due": st.just(()),
    "cancel_order": st.tuples(pick, st.booleans()),
    "purge": st.just(()),
    "change_settings": st.tuples(st.sampled_from([2, 4, 12, 20])),
    "change_price": st.tuples(pick, st.sampled_from([0, PRICE, 150])),
    "forget_tests": st.tuples(st.one_of(st.none(), st.lists(pick, max_size=2))),
    "change_terms": st.tuples(
        pick,
        st.sampled_from([None, None, 0, 2, 3, 4]),
        st.sampled_from([None, None, "", "shoe"]),
        st.sampled_from([None, None, 0, 2, 3]),
        windows,
    ),
    "pause_sale": st.tuples(pick),
    "record_refund": st.tuples(
        pick,
        pick,
        st.sampled_from(["left", "left", "left", "part", "part", "more", "none", None]),
        st.sampled_from(["done", "done", "failed"]),
        st.sampled_from(["refund", "refund", "refund", "void", "chargeback"]),
    ),
    "begin_refunds": st.tuples(st.one_of(st.none(), st.lists(pick, max_size=3))),
    "cancel_sale": st.tuples(pick, st.sampled_from([0, 0, 0, 1])),
}
batched = (
    *("place_hold", "release_hold", "create_order", "apply_payment", "abandon_order", "cancel_order"),
    "record_refund",
)


def batch(function: str) -> st.SearchStrategy:
    return st.tuples(st.just(function), st.lists(arguments[function], min_size=1, max_size=4))


a_batch = st.sampled_from(batched).flatmap(batch)
a_call = st.one_of(
    st.sampled_from(sorted(arguments)).flatmap(
        lambda function: st.tuples(st.just(function), arguments[function])
    ),
    a_batch,
)


def single_call(function: str) -> Callable[..., None]:
    """The rule for a call of the scalar function."""

    @rule(drawn=arguments[function])
    def step(self: "ShopMachine", drawn: tuple) -> None:
        self.call(Call((self.request(function, drawn),)))

    return step


class ShopMachine(RuleBasedStateMachine):
    """One run, from an empty database on."""

    conns: Sequence[psycopg.Connection]
    """autocommit, to a database of its own in which plans are kept (tables.keep_plan)"""

    counts: Counter[str]
    """steps, bursts, calls in bursts (concurrent), and each refusal and result"""

    def __init__(self) -> None:
        super().__init__()
        self.db = self.conns[0]
        self.model = Model()
        self.db.execute(EMPTY)

    @initialize(
        stocks=st.lists(st.integers(0, 9), min_size=1, max_size=3),
        tests=st.lists(st.integers(0, 9), max_size=2),
        limit=st.sampled_from([2, 6, 1000]),
    )
    def start(self, stocks: list[int], tests: list[int], limit: int) -> None:
        model = self.model
        model.inbox_limit = limit
        change_settings(
            self.db, hold_time=f"{model.hold_ticks * TICK} s", payment_window=f"{model.order_ticks * TICK} s",
            inbox_keep=f"{model.keep_ticks * TICK} s", inbox_limit=limit,
            extension_time=f"{model.extension_ticks * TICK} s",
        )  # fmt: skip
        for stock in stocks:
            self.create_product(stock, is_test=False)
        for stock in tests:
            self.create_product(stock, is_test=True)

    def create_product(self, stock: int, *, is_test: bool) -> None:
        query = "select flashsale.create_product('Shoe', %s, %s, p_is_test => %s)"
        (product_id,) = self.db.execute(query, (stock, PRICE, is_test)).fetchone()
        self.model.totals[product_id] = stock
        if is_test:
            self.model.tests.add(product_id)

    @rule(stock=st.integers(1, 9))
    def create_test(self, stock: int) -> None:
        # No precondition: how many there are depends on what a burst has forgotten.
        if len(self.model.tests) < 2:
            self.create_product(stock, is_test=True)

    # --- single calls ---

    (
        place_hold, release_hold, extend_hold, abandon_order, cancel_order, create_order, apply_payment,
        adjust_stock, sweep, purge, change_settings, change_price, change_terms, pause_sale,
        forget_tests, record_refund, begin_refunds, cancel_sale,
    ) = (single_call(function) for function in arguments)  # fmt: skip

    @rule(draw=a_batch)
    def call_batch(self, draw: tuple[str, list[tuple]]) -> None:
        self.call(self.call_for(draw))

    @rule(ticks=st.sampled_from([1, 1, 2, 4, 8]))
    def time_passes(self, ticks: int) -> None:
        advance_clock(self.db, ticks)
        self.model.tick(ticks)
        self.check_stock([])

    # --- concurrent calls ---

    @rule(draws=st.lists(a_call, min_size=2, max_size=CONNECTIONS))
    def burst(self, draws: list[tuple[str, Any]]) -> None:
        calls = [self.call_for(draw) for draw in draws]
        for conn, call in zip(self.conns, calls, strict=False):
            send(conn, call)
        responses = [receive(conn, call) for conn, call in zip(self.conns, calls, strict=False)]
        exchanges = [
            list(zip(call.requests, observed, strict=True))
            for call, observed in zip(calls, responses, strict=True)
        ]
        found = state(self.db)
        explained = explain(self.model, exchanges, found)
        assert explained is not None, f"from {self.model}: no serial order explains {exchanges} and {found}"
        self.model = explained
        self.counts.update(bursts=1, concurrent=len(calls))
        self.check_stock([observed for call in exchanges for _, observed in call])

    def teardown(self) -> None:
        if sys.exc_info()[0] is not None:
            return
        assert state(self.db) == self.model.state()
        assert len(self.model.captured()) == len(self.model.owed()) + sum(
            order.status == "paid" and order.price > 0 for order in self.model.orders.values()
        )
        assert self.model.money_adds_up(), self.model.money()

    # --- from a draw to a request ---

    def call_for(self, draw: tuple[str, Any]) -> Call:
        function, drawn = draw
        if isinstance(drawn, list):
            return Call(tuple(self.request(function, each) for each in drawn), batch=True)
        return Call((self.request(function, drawn),))

    def request(self, function: str, drawn: tuple) -> Request:
        match function:
            case "place_hold":
                product, qty, key, buyer = drawn
                return Request(function, (self.product(product), qty, key and f"cart {key}", buyer))
            case "extend_hold":
                number, later = drawn
                return Request(function, self.seen_end(self.hold(number), later))
            case "abandon_order":
                (number,) = drawn
                known = list(self.model.orders)[-6:]
                order = (
                    self.order(number) if number % 20 == 19 or not known else known[number // 20 % len(known)]
                )
                made = self.model.orders.get(order)
                return Request(function, (order, 1 if made is None or number % 20 == 18 else made.hold_id))
            case "cancel_order":
                number, restock = drawn
                return Request(function, (self.order(number), restock))
            case "change_terms":
                product, max_per_buyer, limit_group, max_per_hold, window = drawn
                return Request(
                    function, (self.product(product), max_per_buyer, limit_group, max_per_hold, *window)
                )
            case "pause_sale":
                (number,) = drawn
                return Request(function if number % 5 == 4 else "resume_sale", (self.product(number // 5),))
            case "cancel_sale":
                number, more = drawn
                product = self.product(number // 6)
                if number % 6 < 5:
                    return Request("preview_cancel_sale", (product,))
                total = self.model.sale(product)["refund_total"] if product in self.model.totals else "0.00"
                return Request(function, (product, int(total.removesuffix(".00")) + more))
            case "begin_refunds":
                (numbers,) = drawn
                return Request(function, (numbers and [self.payment(n) for n in numbers],))
            case "record_refund":
                number, payment, part, status, kind = drawn
                return Request(function, self.outcome_of_a_refund(number, payment, part, status, kind))
            case "release_hold":
                return Request(function, (self.hold(*drawn),))
            case "create_order":
                hold, key = drawn
                return Request(function, (self.hold(hold), key and f"checkout {key}"))
            case "apply_payment":
                key, order, status, amount, currency = drawn
                order_id = self.order(order)
                if amount is not None and order_id in self.model.orders:
                    right = self.model.orders[order_id].amount
                    amount = right if amount == "right" else "1.00"
                else:
                    amount = None
                return Request(function, (f"pay {key}", order_id, status, amount, currency))
            case "adjust_stock":
                number, delta, key = drawn
                product = self.product(number)
                if delta == "all that is available":
                    delta = -self.model.available(product) if product in self.model.totals else -1
                return Request(function, (product, delta, key and f"delivery {key}"))
            case "change_price":
                number, price = drawn
                return Request(function, (self.product(number), price))
            case "expire_due":
                return Request(function, (1000,))
            case "forget_tests":
                (numbers,) = drawn
                # Mostly test products, which are the last ones.
                return Request(function, (numbers and [self.product(-1 - n % 2) for n in numbers],))
            case "purge" | "change_settings":
                return Request(function, drawn)
        raise AssertionError(function)

    def product(self, number: int) -> int:
        """A known one; one in forty times an unknown one."""
        known = list(self.model.totals)
        return 10**9 if number % 40 == 39 else known[number % len(known)]

    def hold(self, number: int) -> int:
        """Mostly one of the newest."""
        known = list(self.model.holds)[-6 if number % 4 else 0 :]
        return 1 if number % 40 == 39 or not known else known[number // 40 % len(known)]

    def seen_end(self, hold: int, later: int) -> tuple[int, str, int]:
        """The arguments of extend_hold: a caller has seen the hold's end, or one so many ticks later."""
        query = "select (expires_at + %s * interval '1 s')::text from flashsale_data.holds where hold_id = %s"
        found = self.db.execute(query, (later * TICK, hold)).fetchone()
        if found is None:
            return hold, "2000-01-01 00:00Z", 0
        return hold, found[0], self.model.holds[hold].lapses_at + later

    def order(self, number: int) -> int:
        """Mostly one of the newest; sometimes one of the next two, or one that may have been purged."""
        known = list(self.model.orders)[-4 if number % 4 else 0 :]
        if number % 20 == 19:
            return max(1, next_order_id(self.db) - 1 - number // 20 % 4)
        coming = next_order_id(self.db) if number % 5 == 0 or not known else 0
        return coming + number // 5 % 2 if coming else known[number // 5 % len(known)]

    def payment(self, number: int) -> str:
        """The key of one of the newest; one in five times that of any, which may be still to come."""
        known = list(self.model.payments)[-6:]
        if number % 5 == 4 or not known:
            return f"pay {number // 5 % 61}"
        return known[number // 5 % len(known)]

    def outcome_of_a_refund(
        self, number: int, payment: int, part: str | None, status: str, kind: str
    ) -> tuple[str, str, int | None, str, str]:
        """Of a refund that is known, every second time; else of one that the provider has made by itself."""
        known = list(self.model.refunds)[-6:]
        if number % 2 or not known:
            refund_key, payment_key, amount = f"re {number // 2 % 40}", self.payment(payment), None
        else:
            refund_key = known[number // 2 % len(known)]
            refund = self.model.refunds[refund_key]
            payment_key = self.payment(payment) if payment % 20 == 19 else refund.payment_key
            amount = refund.amount
        if part != "left" or amount is None:
            left = self.model.refundable(payment_key) if payment_key in self.model.payments else None
            left = PRICE if left is None else left
            amount = {"left": left, "part": 1, "more": left + 1, "none": 0, None: None}[part]
        return refund_key, payment_key, amount, status, kind

    # --- responses ---

    def call(self, call: Call) -> None:
        responses = execute(self.db, call)
        if call.batch and call.function == "apply_payment":
            self.model.end_waits(*(request.args[0] for request in call.requests))
        for i, (request, observed) in enumerate(zip(call.requests, responses, strict=True)):
            if observed == LOCKED and repeats_a_key(call.requests[:i], request):
                continue
            contract = (expected if call.batch else expected_of_scalar)(self.model, request, observed)
            assert observed == contract, f"{request} of {call}: {observed}, and the contract says {contract}"
        if call.function in ("change_settings", "purge", "forget_tests"):
            assert state(self.db) == self.model.state(), f"after {call}"
        if call.function == "forget_tests" and isinstance(responses[0], dict):
            self.counts["forgotten"] += len(responses[0])
        if call.function == "begin_refunds" and isinstance(responses[0], dict):
            self.counts["begun"] += len(responses[0])
        if call.function == "cancel_sale" and isinstance(responses[0], dict):
            self.counts["sale cancelled"] += 1
        self.check_stock(responses)

    def check_stock(self, responses: Sequence[Response]) -> None:
        self.counts["steps"] += 1
        for observed in responses:
            self.counts[observed if isinstance(observed, str) else observed.get("result", "served")] += 1
            self.counts["replayed"] += not isinstance(observed, str) and observed.get("replayed", False)
            self.counts["purged"] += isinstance(observed, dict) and observed.get("orders", 0)
            if isinstance(observed, dict) and "still_due" in observed:
                self.counts["awaits its payment" if observed["refunded"] is None else "refunded"] += 1
        assert self.model.money_adds_up(), self.model.money()
        stock = self.db.execute(STOCK, (list(self.model.totals),)).fetchall()
        assert stock == [
            (product_id, *self.model.units(product_id)) for product_id in sorted(self.model.totals)
        ]


def repeats_a_key(earlier: Sequence[Request], request: Request) -> bool:
    """Whether an earlier request of the batch has its key: this one may then be locked."""
    at = {"apply_payment": 0, "place_hold": 2}.get(request.function, -1)
    return any(request.args[at] is not None and before.args[at] == request.args[at] for before in earlier)
