"""A shop that Hypothesis runs: each request is asked of the database and of the model, and both must say the
same.

What is drawn does not depend on what was answered, so that a run can be repeated although ids are random and
the order of calls that are under way at once is not the same twice: ids and keys are picked by number from
those known.
"""

import sys
from collections import Counter
from collections.abc import Sequence
from typing import Any

import psycopg
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from proof.clock_shift import TICK, move_on
from proof.model import CURRENCY, PRICE, Answer, Model
from proof.requests import BUSY, Call, Request, ask, receive, send
from proof.serial_orders import answered, answered_alone, explain
from proof.tables import EMPTY, state
from tests.support.sql_calls import change_settings, next_order_id

STOCK = "select id, available_stock, held, awaiting, paid from flashsale.get_stock(%s)"
CONNECTIONS = 5

pick = st.integers(0, 10**6)
maybe_key = st.one_of(st.none(), st.integers(0, 40))
words = st.sampled_from(["success", "success", "failed", "cancelled"])
amounts = st.sampled_from([None, None, None, "right", "wrong"])
currencies = st.sampled_from([None, None, None, CURRENCY, "EUR"])
wishes = {
    "place_hold": st.tuples(pick, st.integers(0, 4), maybe_key),
    "release_hold": st.tuples(pick),
    "create_order": st.tuples(pick, maybe_key),
    "apply_payment": st.tuples(st.integers(0, 60), pick, words, amounts, currencies),
    "adjust_stock": st.tuples(pick, st.one_of(st.integers(-3, 3), st.just("all that is available"))),
    "expire_due": st.just(()),
    "purge": st.just(()),
    "change_settings": st.tuples(st.sampled_from([2, 4, 12, 20])),
}
batched = ("place_hold", "release_hold", "create_order", "apply_payment")


def batch(function: str) -> st.SearchStrategy:
    return st.tuples(st.just(function), st.lists(wishes[function], min_size=1, max_size=4))


a_batch = st.sampled_from(batched).flatmap(batch)
a_call = st.one_of(
    st.sampled_from(sorted(wishes)).flatmap(lambda function: st.tuples(st.just(function), wishes[function])),
    a_batch,
)


class ShopMachine(RuleBasedStateMachine):
    """One shop, from its opening on."""

    conns: Sequence[psycopg.Connection]
    """autocommit, to a database of its own in which plans are kept (tables.keep_plan)"""

    met: Counter[str]
    """steps, bursts, calls in bursts (raced), and each refusal and result that was the answer"""

    def __init__(self) -> None:
        super().__init__()
        self.db = self.conns[0]
        self.model = Model()
        self.db.execute(EMPTY)

    @initialize(
        stocks=st.lists(st.integers(0, 9), min_size=1, max_size=3), limit=st.sampled_from([2, 6, 1000])
    )
    def open_shop(self, stocks: list[int], limit: int) -> None:
        model = self.model
        model.inbox_limit = limit
        change_settings(
            self.db, hold_time=f"{model.hold_ticks * TICK} s", payment_window=f"{model.order_ticks * TICK} s",
            inbox_keep=f"{model.keep_ticks * TICK} s", inbox_limit=limit,
        )  # fmt: skip
        for stock in stocks:
            query = "select flashsale.create_product('Shoe', %s, %s)"
            model.totals[self.db.execute(query, (stock, PRICE)).fetchone()[0]] = stock

    # --- one after the other ---

    @rule(wish=wishes["place_hold"])
    def place_hold(self, wish: tuple) -> None:
        self.ask_one("place_hold", wish)

    @rule(wish=wishes["release_hold"])
    def release_hold(self, wish: tuple) -> None:
        self.ask_one("release_hold", wish)

    @rule(wish=wishes["create_order"])
    def create_order(self, wish: tuple) -> None:
        self.ask_one("create_order", wish)

    @rule(wish=wishes["apply_payment"])
    def apply_payment(self, wish: tuple) -> None:
        self.ask_one("apply_payment", wish)

    @rule(wish=wishes["adjust_stock"])
    def adjust_stock(self, wish: tuple) -> None:
        self.ask_one("adjust_stock", wish)

    @rule()
    def sweep(self) -> None:
        self.ask_one("expire_due", ())

    @rule()
    def purge(self) -> None:
        self.ask_one("purge", ())

    @rule(wish=wishes["change_settings"])
    def change_settings(self, wish: tuple) -> None:
        self.ask_one("change_settings", wish)

    @rule(wishes=a_batch)
    def ask_a_batch(self, wishes: tuple[str, list[tuple]]) -> None:
        self.ask(self.call_for(wishes))

    @rule(ticks=st.sampled_from([1, 1, 2, 4, 8]))
    def time_passes(self, ticks: int) -> None:
        move_on(self.db, ticks)
        self.model.tick(ticks)
        self.counted([])

    # --- at once ---

    @rule(wishes=st.lists(a_call, min_size=2, max_size=CONNECTIONS))
    def burst(self, wishes: list[tuple[str, Any]]) -> None:
        calls = [self.call_for(wish) for wish in wishes]
        for conn, call in zip(self.conns, calls, strict=False):
            send(conn, call)
        answers = [receive(conn, call) for conn, call in zip(self.conns, calls, strict=False)]
        told = [
            list(zip(call.requests, seen, strict=True)) for call, seen in zip(calls, answers, strict=True)
        ]
        found = state(self.db)
        explained = explain(self.model, told, found)
        assert explained is not None, f"from {self.model}: no order of these explains {told} and {found}"
        self.model = explained
        self.met.update(bursts=1, raced=len(calls))
        self.counted([seen for call in told for _, seen in call])

    def teardown(self) -> None:
        if sys.exc_info()[0] is not None:
            return
        assert state(self.db) == self.model.state()
        assert len(self.model.captured()) == len(self.model.refunds_due()) + sum(
            order.status == "paid" for order in self.model.orders.values()
        )

    # --- from what was drawn to a request ---

    def call_for(self, wishes: tuple[str, Any]) -> Call:
        function, drawn = wishes
        if isinstance(drawn, list):
            return Call(tuple(self.request(function, wish) for wish in drawn), batch=True)
        return Call((self.request(function, drawn),))

    def request(self, function: str, wish: tuple) -> Request:
        match function:
            case "place_hold":
                product, qty, key = wish
                return Request(function, (self.product(product), qty, key and f"cart {key}"))
            case "release_hold":
                return Request(function, (self.hold(*wish),))
            case "create_order":
                hold, key = wish
                return Request(function, (self.hold(hold), key and f"checkout {key}"))
            case "apply_payment":
                key, order, word, amount, currency = wish
                order_id = self.order(order)
                if amount is not None and order_id in self.model.orders:
                    right = self.model.orders[order_id].amount
                    amount = right if amount == "right" else "1.00"
                else:
                    amount = None
                return Request(function, (f"pay {key}", order_id, word, amount, currency))
            case "adjust_stock":
                number, delta = wish
                product = self.product(number)
                if delta == "all that is available":
                    delta = -self.model.available(product) if product in self.model.totals else -1
                return Request(function, (product, delta))
            case "expire_due":
                return Request(function, (1000,))
            case "purge" | "change_settings":
                return Request(function, wish)
        raise AssertionError(function)

    def product(self, number: int) -> int:
        """One of those there are; one in forty times one there is not."""
        known = list(self.model.totals)
        return 10**9 if number % 40 == 39 else known[number % len(known)]

    def hold(self, number: int) -> int:
        """Mostly one of the last few."""
        known = list(self.model.holds)[-6 if number % 4 else 0 :]
        return 1 if number % 40 == 39 or not known else known[number // 40 % len(known)]

    def order(self, number: int) -> int:
        """Mostly one of the last few; now and then one of the next two, or one that may have been purged."""
        known = list(self.model.orders)[-4 if number % 4 else 0 :]
        if number % 20 == 19:
            return max(1, next_order_id(self.db) - 1 - number // 20 % 4)
        coming = next_order_id(self.db) if number % 5 == 0 or not known else 0
        return coming + number // 5 % 2 if coming else known[number // 5 % len(known)]

    # --- what was answered ---

    def ask_one(self, function: str, wish: tuple) -> None:
        self.ask(Call((self.request(function, wish),)))

    def ask(self, call: Call) -> None:
        answers = ask(self.db, call)
        if call.batch and call.function == "apply_payment":
            self.model.end_waits(*(request.args[0] for request in call.requests))
        for i, (request, seen) in enumerate(zip(call.requests, answers, strict=True)):
            if seen == BUSY and names_again(call.requests[:i], request):
                continue
            expected = (answered if call.batch else answered_alone)(self.model, request, seen)
            assert seen == expected, f"{request} of {call}: {seen}, where the contract says {expected}"
        if call.function in ("change_settings", "purge"):
            assert state(self.db) == self.model.state(), f"after {call}"
        self.counted(answers)

    def counted(self, answers: Sequence[Answer]) -> None:
        self.met["steps"] += 1
        for seen in answers:
            self.met[seen if isinstance(seen, str) else seen.get("result", "served")] += 1
            self.met["replayed"] += not isinstance(seen, str) and seen.get("replayed", False)
            self.met["purged"] += isinstance(seen, dict) and seen.get("orders", 0)
        stock = self.db.execute(STOCK, (list(self.model.totals),)).fetchall()
        assert stock == [
            (product_id, *self.model.units(product_id)) for product_id in sorted(self.model.totals)
        ]


def names_again(earlier: Sequence[Request], request: Request) -> bool:
    """Whether an earlier request of the batch has its key: this one may then have to be sent again."""
    at = 0 if request.function == "apply_payment" else -1
    return any(request.args[at] is not None and before.args[at] == request.args[at] for before in earlier)
