"""A small rehearsal in which everything went right, made up rather than run."""

from datetime import UTC, datetime

from flashsale.rehearsal.buyers import EARLY, FAILS, PAYS, RELEASES, Buyer, Cast, Shares
from flashsale.rehearsal.checks import check
from flashsale.rehearsal.machine import Load
from flashsale.rehearsal.record import Call, Kind, Outcome, Phase, Purchase, Seen, Units, Word
from flashsale.rehearsal.run import Options, Rehearsal
from flashsale.rehearsal.shop import Books, Product

STOCK = 3


def buyer(number, behaviour=PAYS):
    return Buyer(number, behaviour, number == 1, (0.1, 0.1))


def purchase(number, outcome, behaviour=PAYS, words=(), order=True):
    made = Purchase(buyer(number, behaviour), 100 + number, 0.1, number if order else None, 0.2)
    made.words = [Word(f"key-{number}-{n}", number, *word) for n, word in enumerate(words)]
    made.outcome = outcome
    return made


def seen() -> Seen:
    """Six buyers for three units: three have one, one gave it back, one paid too late, one came in vain."""
    return Seen(
        calls=[
            Call(kind, n / 10, 0.01 * (n + 1), status, code, again)
            for n, (kind, status, code, again) in enumerate(
                [
                    *[(Kind.LOOK, 200, "", False)] * 5,
                    (Kind.HOLD, 503, "overloaded", True),
                    *[(Kind.HOLD, 201, "", False)] * 5,
                    (Kind.HOLD, 409, "insufficient_stock", False),
                    *[(Kind.ORDER, 201, "", False)] * 4,
                    *[(Kind.WEBHOOK, 200, "", False)] * 5,
                    (Kind.RELEASE, 204, "", False),
                ]
            )
        ],
        units=[Units(0, 3, 0, 0, 0), Units(0.5, 0, 2, 1, 0), Units(1, 0, 1, 1, 1), Units(2, 0, 0, 0, 3)],
        phases=[Phase("early webhooks", 0, 0.3), Phase("the rush", 0.3, 2)],
        purchases=[
            purchase(1, Outcome.BOUGHT, words=[("success", "applied", "paid")]),
            purchase(2, Outcome.BOUGHT, words=[("success", "applied", "paid")]),
            purchase(3, Outcome.BOUGHT, EARLY, words=[("success", "stored", None)]),
            purchase(4, Outcome.RELEASED, RELEASES, order=False),
            purchase(
                5,
                Outcome.REFUND_DUE,
                FAILS,
                words=[("failed", "applied", "cancelled"), ("success", "refund_due", "cancelled")],
            ),
        ],
        sold_out=1,
        repeated=3,
        available_at_end=0,
    )


def books() -> Books:
    made = Books(total=3, available=0, held=0, awaiting=0, paid=3)
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
    facts = {"seen": seen(), "books": books()} | changed
    return Rehearsal(
        options=Options(6, STOCK, 4, Shares(late=10), None, 7),
        url="http://127.0.0.1:8000",
        began_at=datetime(2026, 3, 1, 20, 15, tzinfo=UTC),
        product=Product(9, "Rehearsal <of> & more", "ab12", STOCK, 0),
        cast=Cast([buyer(3, EARLY)], [buyer(1), buyer(2), buyer(4, RELEASES), buyer(5, FAILS), buyer(6)]),
        checks=check(facts["seen"], facts["books"], STOCK),
        load=Load(2, 1.8, 0.5),
        versions={"flashsale": "1.0.0", "PostgreSQL": "15.18"},
        notes=["A note."],
        **facts,
    )
