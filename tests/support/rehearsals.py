"""A small fictitious rehearsal in which every check passes."""

from datetime import UTC, datetime

from flashsale.rehearsal.buyers import EARLY, FAILS, PAYS, RELEASES, Buyer, Buyers, Shares
from flashsale.rehearsal.checks import check
from flashsale.rehearsal.cpu import CpuUsage
from flashsale.rehearsal.database_state import DatabaseState
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


def buyer(number, behaviour=PAYS):
    return Buyer(number, behaviour, number == 1, (0.1, 0.1))


def purchase(number, outcome, behaviour=PAYS, webhooks=(), order=True):
    made = Purchase(buyer(number, behaviour), 100 + number, 0.1, number if order else None, 0.2)
    made.webhooks = [Webhook(f"key-{number}-{n}", number, *webhook) for n, webhook in enumerate(webhooks)]
    made.outcome = outcome
    return made


def observed() -> Observations:
    """Six buyers, three units: three bought one, one released it, one paid too late, one got none."""
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
        sold_out=1,
        duplicates=3,
        available_at_end=0,
    )


def state() -> DatabaseState:
    made = DatabaseState(total=3, available=0, held=0, awaiting=0, paid=3)
    made.events["hold_placed"] = [101, 102, 103, 104, 105]
    made.events["order_created"] = [1, 2, 3, 5]
    made.payments = {
        "key-1-0": ("success", "applied"),
        "key-2-0": ("success", "applied"),
        "key-3-0": ("success", "applied"),
        "key-5-0": ("failed", "applied"),
        "key-5-1": ("success", "refund_due"),
    }
    made.refunds = {"key-5-1"}
    return made


def rehearsal(**changed) -> Rehearsal:
    facts = {"observed": observed(), "state": state()} | changed
    return Rehearsal(
        options=Options(6, STOCK, 4, Shares(late=10), None, 7),
        url="http://127.0.0.1:8000",
        began_at=datetime(2026, 3, 1, 20, 15, tzinfo=UTC),
        product=Product(9, "Rehearsal <of> & more", "ab12", STOCK, 0),
        buyers=Buyers([buyer(3, EARLY)], [buyer(1), buyer(2), buyer(4, RELEASES), buyer(5, FAILS), buyer(6)]),
        checks=check(facts["observed"], facts["state"], STOCK),
        cpu=CpuUsage(2, 1.8, 0.5),
        versions={"flashsale": "1.0.0", "PostgreSQL": "15.18"},
        notes=["A note."],
        **facts,
    )
