"""Webhooks in any order: every permutation of an order, two payments, a duplicate, two failures (or a
declined attempt, or the shop's cancellation, instead of one), time and the sweep; and of an order, two
payments, a refund that is done and one that fails, a chargeback and the shop's cancellation.

The permutations of the events are the leaves of a tree. It is tree with savepoints, so that a common
prefix is run once, and each response is compared with the contract.
"""

import itertools
import math
from collections.abc import Callable

import psycopg
import pytest
from psycopg.pq import ExecStatus

from proof.campaign import Campaign
from proof.clock_shift import TICK, advance_clock
from proof.model import PRICE, Model, Response
from proof.requests import Call, execute, scalar
from proof.tables import keep_plan, state
from tests.support.sql_calls import change_settings, create_product

ORDER, UNITS = 1, 2
SWEEP = scalar("expire_due", 1000)
WEBHOOKS = {
    "success": scalar("apply_payment", "pays", ORDER, "success", None, None),
    "duplicate": scalar("apply_payment", "pays", ORDER, "success", None, None),
    "second success": scalar("apply_payment", "pays again", ORDER, "success", None, None),
    "failed": scalar("apply_payment", "fails", ORDER, "failed", None, None),
    "cancelled": scalar("apply_payment", "cancels", ORDER, "cancelled", None, None),
    "declined": scalar("apply_payment", "declines", ORDER, "declined", None, None),
    "shop cancels": scalar("cancel_order", ORDER, True),
    "refund": scalar("record_refund", "re_1", "pays", 40, "done", "refund"),
    "refund fails": scalar("record_refund", "re_1", "pays", 40, "failed", "refund"),
    "chargeback": scalar("record_refund", "dp_1", "pays", UNITS * PRICE, "done", "chargeback"),
}
EVENTS = ("create_order", "success", "duplicate", "second success", "failed", "cancelled", "lapse", "sweep")
DECLINED = ("create_order", "success", "second success", "failed", "declined", "lapse", "sweep")
SHOP_CANCELS = ("create_order", "success", "second success", "failed", "shop cancels", "lapse", "sweep")
MONEY_BACK = (
    *("create_order", "success", "second success", "refund", "refund fails", "chargeback"),
    "shop cancels",
)


class Walk:
    """One walk of the tree.

    :param events: to permute
    :param scarce: another buyer holds the units whenever they are available
    :param prefix: only permutations that begin with these events
    """

    def __init__(
        self, conn: psycopg.Connection, events: tuple[str, ...], *, scarce: bool, prefix: tuple[str, ...]
    ) -> None:
        self.conn = conn
        self.events = events
        self.scarce = scarce
        self.prefix = prefix
        self.permutations = 0

    def run(self, model: Model, product: int, hold: int) -> None:
        self.calls = {"create_order": scalar("create_order", hold, None), "sweep": SWEEP, **WEBHOOKS}
        self.rival = scalar("place_hold", product, UNITS, None, None)
        self.product = product
        self.after((), model)

    def after(self, done: tuple[str, ...], model: Model) -> None:
        if len(done) == len(self.events):
            self.permutations += 1
            self.compare(done, model)
            return
        coming = [event for event in self.events if event not in done]
        if len(done) < len(self.prefix):
            coming = [self.prefix[len(done)]]
        for event in coming:
            self.execute_sql(f"savepoint s{len(done)}")
            next_model = model.copy()
            self.take(event, (*done, event), next_model)
            self.after((*done, event), next_model)
            self.execute_sql(f"rollback to savepoint s{len(done)}")

    def take(self, event: str, done: tuple[str, ...], model: Model) -> None:
        if event == "lapse":
            advance_clock(self.conn, model.order_ticks)
            model.tick(model.order_ticks)
        else:
            if event == "create_order":
                # A rollback does not reset the sequence; the webhooks name this id.
                self.execute_sql(f"select setval('flashsale_data.order_ids', {ORDER}, false)")
            self.call(self.calls[event], done, model)
        if self.scarce and model.available(self.product) == UNITS:
            self.call(self.rival, done, model)

    def call(self, call: Call, done: tuple[str, ...], model: Model) -> None:
        (request,) = call.requests
        (observed,) = execute(self.conn, call)
        if isinstance(observed, str):
            self.execute_sql(f"rollback to savepoint s{len(done) - 1}")
        expected: Response = getattr(model, request.function)(*request.args, observed)
        assert observed == expected, f"{', '.join(done)}: {observed}, and the contract says {expected}"

    def execute_sql(self, statement: str) -> None:
        result = self.conn.pgconn.exec_(statement.encode())
        assert result.status in (ExecStatus.COMMAND_OK, ExecStatus.TUPLES_OK), result.error_message

    def compare(self, done: tuple[str, ...], model: Model) -> None:
        """Tables, money and audit() after the last event."""
        assert state(self.conn) == model.state(), ", ".join(done)
        paid = [order for order in model.orders.values() if order.status == "paid"]
        assert len(model.captured()) == len(paid) + len(model.owed()), ", ".join(done)
        assert model.money_adds_up(), ", ".join(done)


@pytest.fixture
def walk(db: psycopg.Connection) -> Callable[..., Walk]:
    keep_plan(db)

    def run(events: tuple[str, ...], prefix: tuple[str, ...], *, hold_ticks: int, scarce: bool) -> Walk:
        with db.transaction(force_rollback=True):
            model = Model(hold_ticks=hold_ticks)
            change_settings(
                db, hold_time=f"{model.hold_ticks * TICK} s", payment_window=f"{model.order_ticks * TICK} s",
                inbox_keep=f"{model.keep_ticks * TICK} s",
            )  # fmt: skip
            product = create_product(db, stock=UNITS)
            model.totals[product] = UNITS
            (observed,) = execute(db, scalar("place_hold", product, UNITS, None, None))
            hold = model.place_hold(product, UNITS, None, None, observed)["hold_id"]
            tree = Walk(db, events, scarce=scarce, prefix=prefix)
            tree.run(model, product, hold)
        # Rolled back rows would be read again and again.
        db.execute("vacuum")
        return tree

    return run


@pytest.mark.parametrize(
    ("events", "hold_ticks", "scarce", "circumstances"),
    [
        (EVENTS, 3, False, "the hold expires with the order, its units stay available"),
        (
            EVENTS,
            20,
            True,
            "the hold outlives the order, another buyer holds its units whenever they are available",
        ),
        (
            DECLINED,
            3,
            False,
            "an attempt is declined, the hold expires with the order, its units stay available",
        ),
        (SHOP_CANCELS, 20, True, "the shop cancels the order, another buyer holds its units"),
        (
            MONEY_BACK,
            20,
            False,
            "money of the payment goes back, and comes back, before it came, or after it",
        ),
    ],
    ids=["plenty", "scarce", "declined", "shop cancels", "money back"],
)
def test_every_permutation_of_events_agrees_with_the_contract(
    walk: Callable[..., Walk],
    campaign: Campaign,
    events: tuple[str, ...],
    hold_ticks: int,
    scarce: bool,
    circumstances: str,
) -> None:
    prefix = campaign.size(
        [tuple(campaign.random.sample(events, len(events) - 3)) for _ in range(8)],
        list(itertools.permutations(events, 3)),
    )
    walks = [walk(events, first, hold_ticks=hold_ticks, scarce=scarce) for first in prefix]
    permutations = sum(tree.permutations for tree in walks)
    assert permutations == campaign.size(8 * math.factorial(3), math.factorial(len(events)))
    campaign.record(
        f"{permutations:,} permutations of {', '.join(events)}: {circumstances};"
        " money and audit() compared after each",
        permutations_of_events=permutations,
    )
