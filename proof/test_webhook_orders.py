"""Webhooks in any order: the order, two payments, a duplicate, two refusals, time and the sweep, in every
order.

The orders of eight events are the leaves of a tree. It is walked with savepoints, so that what two of them
begin with is done once, and each answer is compared with the contract's on the way.
"""

import itertools
import math
from collections.abc import Callable

import psycopg
import pytest
from psycopg.pq import ExecStatus

from proof.campaign import Campaign
from proof.clock_shift import TICK, move_on
from proof.model import Answer, Model
from proof.requests import Call, alone, ask
from proof.tables import keep_plan, state
from tests.support.sql_calls import change_settings, create_product

ORDER, UNITS = 1, 2
SWEEP = alone("expire_due", 1000)
WEBHOOKS = {
    "success": alone("apply_payment", "pays", ORDER, "success", None, None),
    "duplicate": alone("apply_payment", "pays", ORDER, "success", None, None),
    "second success": alone("apply_payment", "pays again", ORDER, "success", None, None),
    "failed": alone("apply_payment", "fails", ORDER, "failed", None, None),
    "cancelled": alone("apply_payment", "cancels", ORDER, "cancelled", None, None),
}
EVENTS = ("create_order", *WEBHOOKS, "lapse", "sweep")


class Walk:
    """One walk of the tree.

    :param scarce: somebody else takes the units whenever they are free
    :param begins: only orders that begin with these events
    """

    def __init__(self, conn: psycopg.Connection, *, scarce: bool, begins: tuple[str, ...]) -> None:
        self.conn = conn
        self.scarce = scarce
        self.begins = begins
        self.orders_of_events = 0

    def run(self, model: Model, product: int, hold: int) -> None:
        self.calls = {"create_order": alone("create_order", hold, None), "sweep": SWEEP, **WEBHOOKS}
        self.rival = alone("place_hold", product, UNITS, None)
        self.product = product
        self.after((), model)

    def after(self, done: tuple[str, ...], model: Model) -> None:
        if len(done) == len(EVENTS):
            self.orders_of_events += 1
            self.agree(done, model)
            return
        coming = [event for event in EVENTS if event not in done]
        if len(done) < len(self.begins):
            coming = [self.begins[len(done)]]
        for event in coming:
            self.run_at_once(f"savepoint s{len(done)}")
            further = model.copy()
            self.take(event, (*done, event), further)
            self.after((*done, event), further)
            self.run_at_once(f"rollback to savepoint s{len(done)}")

    def take(self, event: str, done: tuple[str, ...], model: Model) -> None:
        if event == "lapse":
            move_on(self.conn, model.order_ticks)
            model.tick(model.order_ticks)
        else:
            if event == "create_order":
                # Sequences do not roll back; the webhooks are about this one.
                self.run_at_once(f"select setval('flashsale_data.order_ids', {ORDER}, false)")
            self.ask(self.calls[event], done, model)
        if self.scarce and model.available(self.product) == UNITS:
            self.ask(self.rival, done, model)

    def ask(self, call: Call, done: tuple[str, ...], model: Model) -> None:
        (request,) = call.requests
        (seen,) = ask(self.conn, call)
        if isinstance(seen, str):
            self.run_at_once(f"rollback to savepoint s{len(done) - 1}")
        expected: Answer = getattr(model, request.function)(*request.args, seen)
        assert seen == expected, f"{', '.join(done)}: {seen}, where the contract says {expected}"

    def run_at_once(self, statement: str) -> None:
        result = self.conn.pgconn.exec_(statement.encode())
        assert result.status in (ExecStatus.COMMAND_OK, ExecStatus.TUPLES_OK), result.error_message

    def agree(self, done: tuple[str, ...], model: Model) -> None:
        """The tables, the money and the books after the last event."""
        assert state(self.conn) == model.state(), ", ".join(done)
        paid = [order for order in model.orders.values() if order.status == "paid"]
        assert len(model.captured()) == len(paid) + len(model.refunds_due()), ", ".join(done)


@pytest.fixture
def walk(db: psycopg.Connection) -> Callable[..., Walk]:
    keep_plan(db)

    def run(begins: tuple[str, ...], *, hold_ticks: int, scarce: bool) -> Walk:
        with db.transaction(force_rollback=True):
            model = Model(hold_ticks=hold_ticks)
            change_settings(
                db, hold_time=f"{model.hold_ticks * TICK} s", payment_window=f"{model.order_ticks * TICK} s",
                inbox_keep=f"{model.keep_ticks * TICK} s",
            )  # fmt: skip
            product = create_product(db, stock=UNITS)
            model.totals[product] = UNITS
            (seen,) = ask(db, alone("place_hold", product, UNITS, None))
            hold = model.place_hold(product, UNITS, None, seen)["hold_id"]
            walked = Walk(db, scarce=scarce, begins=begins)
            walked.run(model, product, hold)
        # What was undone is still in the files, and would be read over and over.
        db.execute("vacuum")
        return walked

    return run


@pytest.mark.parametrize(
    ("hold_ticks", "scarce", "circumstances"),
    [
        (3, False, "the hold lapses with the order, its units stay free"),
        (20, True, "the hold outlives the order, somebody else takes its units whenever they are free"),
    ],
    ids=["plenty", "scarce"],
)
def test_every_order_of_events_agrees_with_the_contract(
    walk: Callable[..., Walk], campaign: Campaign, hold_ticks: int, scarce: bool, circumstances: str
) -> None:
    begins = campaign.size(
        [tuple(campaign.random.sample(EVENTS, 5)) for _ in range(8)], list(itertools.permutations(EVENTS, 3))
    )
    walks = [walk(events, hold_ticks=hold_ticks, scarce=scarce) for events in begins]
    orders_of_events = sum(walked.orders_of_events for walked in walks)
    assert orders_of_events == campaign.size(8 * math.factorial(3), math.factorial(8))
    campaign.tried(
        f"{orders_of_events:,} orders of {', '.join(EVENTS)}: {circumstances};"
        " the money and audit() after each"
    )
