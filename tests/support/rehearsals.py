"""A small fictitious rehearsal in which every check passes."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal

from flashsale.rehearsal.buyers import BOT, EARLY, FAILS, PAYS, RELEASES, Buyer, Buyers, Shares
from flashsale.rehearsal.checks import check
from flashsale.rehearsal.cpu import CpuUsage
from flashsale.rehearsal.database_state import DatabaseState, Event, Payment
from flashsale.rehearsal.observations import (
    Call,
    Observations,
    Operation,
    Outcome,
    Phase,
    Purchase,
    StockLevels,
    Webhook,
)
from flashsale.rehearsal.run import Options, Rehearsal
from flashsale.rehearsal.throwaway_product import Product

STOCK = 3
PRICE = Decimal("99.00")
START = datetime(2026, 3, 1, 20, 15, 5, tzinfo=UTC)
PRODUCT = Product(9, "Rehearsal <of> & more", "ab12", STOCK, 0)
DROP = Product(9, "Rehearsal <of> & more", "ab12", STOCK, 0, limit=2, starts_at=START)


def buyer(number, behaviour=PAYS):
    return Buyer(number, behaviour, number == 1, (0.1, 0.1))


def purchase(number, outcome, behaviour=PAYS, webhooks=(), order=True):
    made = Purchase(buyer(number, behaviour), 100 + number, 0.1, number if order else None, 0.2)
    made.webhooks = [
        Webhook(f"key-{number}-{n}", number, *webhook, PRICE) for n, webhook in enumerate(webhooks)
    ]
    made.outcome = outcome
    return made


def after(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


def bot(number: int) -> Buyer:
    return Buyer(number, BOT, False, (0.1, 0.1), bot_account=0)


def event(kind, seconds, hold_id, order_id=None, delta=0) -> Event:
    return Event(kind, after(seconds), hold_id, order_id, delta)


def observed() -> Observations:
    """Six buyers, three units: three bought one, one released it, one paid too late, one got none.

    Of the refund that is due the provider has returned 33.00. Two requests came too early, and one of a bot
    was over the limit.
    """
    return Observations(
        calls=[
            Call(operation, n / 10, 0.01 * (n + 1), status, code, retried)
            for n, (operation, status, code, retried) in enumerate(
                [
                    *[(Operation.VIEW, 200, "", False)] * 5,
                    (Operation.HOLD, 503, "overloaded", True),
                    *[(Operation.HOLD, 201, "", False)] * 5,
                    (Operation.HOLD, 409, "insufficient_stock", False),
                    *[(Operation.ORDER, 201, "", False)] * 4,
                    *[(Operation.WEBHOOK, 200, "", False)] * 5,
                    (Operation.RELEASE, 204, "", False),
                    (Operation.HOLD, 409, "sale_not_started", False),
                    (Operation.BOT, 409, "sale_not_started", False),
                    (Operation.BOT, 409, "limit_reached", False),
                ]
            )
        ],
        stock_levels=[
            StockLevels(0, 3, 0, 0, 0),
            StockLevels(0.5, 0, 2, 1, 0),
            StockLevels(1, 0, 1, 1, 1),
            StockLevels(2, 0, 0, 0, 3),
        ],
        phases=[Phase("early webhooks", 0, 0.3), Phase("rush", 0.3, 2)],
        purchases=[
            purchase(1, Outcome.BOUGHT, webhooks=[("success", "applied", "paid")]),
            purchase(2, Outcome.BOUGHT, webhooks=[("success", "applied", "paid")]),
            purchase(3, Outcome.BOUGHT, EARLY, webhooks=[("success", "stored", None)]),
            purchase(4, Outcome.RELEASED, RELEASES, order=False),
            purchase(
                5,
                Outcome.REFUND_DUE,
                FAILS,
                webhooks=[("failed", "applied", "cancelled"), ("success", "refund_due", "cancelled")],
            ),
        ],
        refunds={"key-5-1": Decimal("33.00")},
        sold_out=1,
        duplicates=3,
        available_at_end=0,
    )


def state() -> DatabaseState:
    made = DatabaseState(total=3, available=0, held=0, awaiting=0, paid=3)
    made.ledger = [
        *[event("hold_placed", n / 100, 100 + n, delta=-1) for n in range(1, 6)],
        event("hold_released", 0.2, 104, delta=1),
        *[event("order_created", 0.3, 100 + n, n) for n in (1, 2, 3, 5)],
        event("order_cancelled", 0.4, 105, 5, 1),
        *[event("order_paid", 0.5, 100 + n, n) for n in (1, 2, 3)],
    ]
    made.payments = {
        "key-1-0": Payment("success", "applied", PRICE),
        "key-2-0": Payment("success", "applied", PRICE),
        "key-3-0": Payment("success", "applied", PRICE),
        "key-5-0": Payment("failed", "applied", PRICE),
        "key-5-1": Payment("success", "refund_due", PRICE),
    }
    made.due = {"key-5-1": Decimal("66.00")}
    made.refunded = {"key-5-1": Decimal("33.00")}
    return made


def rehearsal(product: Product = PRODUCT, bots: int = 0, **changed) -> Rehearsal:
    facts = {"observed": observed(), "state": state()} | changed
    crowd = [buyer(1), buyer(2), buyer(4, RELEASES), buyer(5, FAILS), buyer(6)]
    return Rehearsal(
        options=Options(
            6, STOCK, 4, Shares(late=10), None, 7,
            limit=product.limit, starts_in=None if product.starts_at is None else timedelta(seconds=5),
        ),
        url="http://127.0.0.1:8000",
        began_at=datetime(2026, 3, 1, 20, 15, tzinfo=UTC),
        product=product,
        buyers=Buyers([buyer(3, EARLY)], crowd, [bot(7 + n) for n in range(bots)]),
        checks=check(facts["observed"], facts["state"], product),
        cpu=CpuUsage(2, 1.8, 0.5),
        versions={"flashsale": "1.0.0", "PostgreSQL": "15.18"},
        notes=["A note."],
        **facts,
    )  # fmt: skip
