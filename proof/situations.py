"""What the transactions of an interleaving start from, and the operations that they run."""

from collections.abc import Callable
from dataclasses import dataclass

import psycopg

from proof.clock_shift import advance_clock
from proof.model import Model, Response
from proof.requests import Call, execute, scalar
from proof.serial_orders import expected
from tests.support.sql_calls import create_product, next_order_id

SHORTER_KEEP = 4
"""ticks"""
FAILED_STORED = "failed stored"
"""a webhook's key"""


@dataclass
class Situation:
    """The ids that operations use.

    :param order: the webhooks are about it
    :param wanted: units of a new hold
    :param other: a second webhook with the key FAILED_STORED is about this order
    :param buyer: of new holds
    :param sibling: another product of the limit group, if there is one, or the product itself
    :param seen: the end of the hold, as it is recorded
    """

    model: Model
    product: int
    hold: int
    order: int
    wanted: int
    other: int
    buyer: str | None = None
    sibling: int = 0
    seen: str = ""

    def extension(self) -> tuple[int, str, int]:
        return self.hold, self.seen, self.model.holds[self.hold].lapses_at

    def refund_total(self) -> int:
        return int(self.model.sale(self.product)["refund_total"].removesuffix(".00"))

    def abandoned(self) -> tuple[int, int]:
        """The order and its hold, or the hold that becomes the order."""
        order = self.model.orders.get(self.order)
        return self.order, self.hold if order is None else order.hold_id


def in_time(db: psycopg.Connection, model: Model, product: int) -> Situation:
    """2 of 6 units are available, 3 are wanted; the order is pending."""
    order = call(
        db, model, "create_order", call(db, model, "place_hold", product, 2, None, None)["hold_id"], None
    )
    hold = call(db, model, "place_hold", product, 2, None, None)["hold_id"]
    return Situation(model, product, hold, order["order_id"], 3, order["order_id"])


def late(db: psycopg.Connection, model: Model, product: int) -> Situation:
    """The order is overdue and a hold has expired, both not swept; all available units are wanted."""
    order = call(
        db, model, "create_order", call(db, model, "place_hold", product, 2, None, None)["hold_id"], None
    )
    call(db, model, "place_hold", product, 1, None, None)
    advance_clock(db, model.order_ticks)
    model.tick(model.order_ticks)
    hold = call(db, model, "place_hold", product, 2, None, None)["hold_id"]
    return Situation(model, product, hold, order["order_id"], 4, order["order_id"])


def before_order(db: psycopg.Connection, model: Model, product: int) -> Situation:
    """The webhooks are about the next order, which the hold becomes; all units are held, 2 are wanted."""
    call(db, model, "place_hold", product, 4, None, None)
    hold = call(db, model, "place_hold", product, 2, None, None)["hold_id"]
    next_id = next_order_id(db)
    return Situation(model, product, hold, next_id, 2, next_id)


def paid_stored(db: psycopg.Connection, model: Model, product: int) -> Situation:
    """As before_order, but the waits of a success and a failed webhook for the order have ended, unswept. A
    second success still waits, unless inbox_keep is shortened. Another order is pending, and 2 of 6 units are
    available."""
    return after_waits(
        db, model, product, ended={FAILED_STORED: "failed", "paid stored": "success"},
        stored={"paid again stored": "success"}, waits=SHORTER_KEEP + 1,
    )  # fmt: skip


def cancelled_stored(db: psycopg.Connection, model: Model, product: int) -> Situation:
    """As paid_stored, but a cancelled webhook is stored instead of the successes and still waits, even if
    inbox_keep is shortened: the order is cancelled when it is created."""
    return after_waits(
        db, model, product, ended={FAILED_STORED: "failed"}, stored={"cancelled stored": "cancelled"},
        waits=SHORTER_KEEP - 1,
    )  # fmt: skip


def refused(db: psycopg.Connection, model: Model, product: int) -> Situation:
    """As paid_stored, with the failed webhook scalar."""
    return after_waits(db, model, product, ended={FAILED_STORED: "failed"}, stored={}, waits=0)


def after_waits(
    db: psycopg.Connection,
    model: Model,
    product: int,
    *,
    ended: dict[str, str],
    stored: dict[str, str],
    waits: int,
) -> Situation:
    """`ended` and `stored` are webhooks for the next order, as statuses by key; the latter came `waits` ticks
    ago."""
    next_id = next_order_id(db) + 1
    for webhooks, ticks in ((ended, model.keep_ticks - waits), (stored, waits)):
        for key, status in webhooks.items():
            call(db, model, "apply_payment", key, next_id, status, None, None)
        advance_clock(db, ticks)
        model.tick(ticks)
    other = call(
        db, model, "create_order", call(db, model, "place_hold", product, 2, None, None)["hold_id"], None
    )
    hold = call(db, model, "place_hold", product, 2, None, None)["hold_id"]
    assert next_order_id(db) == next_id
    return Situation(model, product, hold, next_id, 3, other["order_id"])


def limited(db: psycopg.Connection, model: Model, product: int) -> Situation:
    """As in_time, but all is ann's: she has 4 of the 5 units that she may have of two products; 1 is
    wanted."""
    sibling = limit(db, model, product, 5)
    order = call(
        db, model, "create_order", call(db, model, "place_hold", product, 2, None, "ann")["hold_id"], None
    )
    hold = call(db, model, "place_hold", product, 2, None, "ann")["hold_id"]
    return Situation(model, product, hold, order["order_id"], 1, order["order_id"], "ann", sibling)


def limited_late(db: psycopg.Connection, model: Model, product: int) -> Situation:
    """As late, but all is ann's: her order of 2 is overdue, and of the 4 units that she may have of two
    products she holds 2; 2 are wanted."""
    sibling = limit(db, model, product, 4)
    order = call(
        db, model, "create_order", call(db, model, "place_hold", sibling, 2, None, "ann")["hold_id"], None
    )
    call(db, model, "place_hold", product, 1, None, "ann")
    advance_clock(db, model.order_ticks)
    model.tick(model.order_ticks)
    hold = call(db, model, "place_hold", product, 2, None, "ann")["hold_id"]
    return Situation(model, product, hold, order["order_id"], 2, order["order_id"], "ann", sibling)


def paid(db: psycopg.Connection, model: Model, product: int) -> Situation:
    """As in_time, but the order was paid twice."""
    situation = in_time(db, model, product)
    for key in ("pays", "pays again"):
        call(db, model, "apply_payment", key, situation.order, "success", None, None)
    return situation


def limit(db: psycopg.Connection, model: Model, product: int, units: int) -> int:
    """A buyer may have so many units of the product and of another one, which is created."""
    sibling = create_product(db, stock=6)
    model.totals[sibling] = 6
    for each in (product, sibling):
        call(db, model, "change_terms", each, units, "shoe", None, None, None)
    return sibling


SITUATIONS = (in_time, late, before_order, paid_stored, cancelled_stored, limited, limited_late)
LAPSED_WAITS = (paid_stored, cancelled_stored)
"""with stored webhooks whose wait has ended"""


def call(db: psycopg.Connection, model: Model, function: str, *args: object) -> Response:
    """A response, on which database and model agree."""
    request = scalar(function, *args)
    (observed,) = execute(db, request)
    assert expected(model, request.requests[0], observed) == observed
    return observed


MONEY_BACK: dict[str, Callable[[Situation], Call]] = {
    "refund": lambda s: scalar("record_refund", "re 1", "pays", 40, "done", "refund"),
    "chargeback": lambda s: scalar("record_refund", "dp 1", "pays", 198, "done", "chargeback"),
    "second refund": lambda s: scalar("record_refund", "re 2", "pays again", 198, "done", "refund"),
    "begin_refunds": lambda s: scalar("begin_refunds", None),
    "cancel_sale": lambda s: scalar("cancel_sale", s.product, s.refund_total()),
}
OPERATIONS: dict[str, Callable[[Situation], Call]] = {
    "place_hold": lambda s: scalar("place_hold", s.product, s.wanted, "cart", s.buyer),
    "release": lambda s: scalar("release_hold", s.hold),
    "create_order": lambda s: scalar("create_order", s.hold, "checkout"),
    "success": lambda s: scalar("apply_payment", "pays", s.order, "success", None, None),
    "failed": lambda s: scalar("apply_payment", "fails", s.order, "failed", None, None),
    "cancelled": lambda s: scalar("apply_payment", "cancels", s.order, "cancelled", None, None),
    "sweep": lambda s: scalar("expire_due", 1000),
    "adjust_stock": lambda s: scalar("adjust_stock", s.product, -2, "write-off"),
    "second success": lambda s: scalar("apply_payment", "pays again", s.order, "success", None, None),
    "purge": lambda s: scalar("purge"),
    "shorter inbox_keep": lambda s: scalar("change_settings", SHORTER_KEEP),
    "adjust_stock to zero": lambda s: scalar("adjust_stock", s.product, -s.model.available(s.product), None),
    "change_price": lambda s: scalar("change_price", s.product, 120),
    "key reused": lambda s: scalar("apply_payment", FAILED_STORED, s.other, "success", None, None),
    "other size": lambda s: scalar("place_hold", s.sibling or s.product, s.wanted, "box", s.buyer),
    "extend": lambda s: scalar("extend_hold", *s.extension()),
    "abandon": lambda s: scalar("abandon_order", *s.abandoned()),
    "pause": lambda s: scalar("pause_sale", s.product),
    "lower limit": lambda s: scalar("change_terms", s.product, 2, None, None, None, None),
    "leave group": lambda s: scalar("change_terms", s.product, None, "", None, None, None),
    "stored replay": lambda s: scalar("apply_payment", FAILED_STORED, s.order, "failed", None, None),
    "declined": lambda s: scalar("apply_payment", "declines", s.order, "declined", None, None),
    "cancel_order": lambda s: scalar("cancel_order", s.order, True),
    "write off": lambda s: scalar("cancel_order", s.order, False),
    **MONEY_BACK,
}
FORGET = "forget_tests"
OF_TESTS = OPERATIONS | {FORGET: lambda s: scalar("forget_tests", None)}
"""in situations whose product is a test product"""
