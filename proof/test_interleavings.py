"""Every interleaving of two and of three transactions, over real connections, at each isolation level.

A transaction is three steps: begin (and take a snapshot), one request, commit. A schedule is an order of the
steps of all. A schedule is impossible if it has a step of a session that waits for a lock; the one in which
the other session goes first is another schedule. (For PostgreSQL's isolationtester, impossible ones are
left out of the specification by hand.)
"""

import itertools
from collections.abc import Callable

import psycopg
import pytest
from psycopg import IsolationLevel

from proof.campaign import Campaign
from proof.interleaver import Interleaver
from proof.situations import FORGET, LAPSED_WAITS, MONEY_BACK, OPERATIONS, SITUATIONS, paid, refused

LEVELS = list(IsolationLevel)[1:]
# A pair of the same operation is a request and its replay.
SALE = [name for name in OPERATIONS if name not in MONEY_BACK]
MONEY_PAIRS = [
    *itertools.combinations_with_replacement(MONEY_BACK, 2),
    *itertools.product(
        MONEY_BACK,
        (
            "place_hold",
            "release",
            "create_order",
            "success",
            "failed",
            "sweep",
            "second success",
            "cancel_order",
        ),
    ),
]
PAIRS = [*itertools.combinations_with_replacement(SALE, 2), *MONEY_PAIRS]
MOST = [name for name in SALE[:8] if name != "cancelled"]
TRIPLES = [
    *itertools.combinations(MOST, 3),
    ("place_hold", "create_order", "change_price"),
    ("place_hold", "other size", "create_order"),
    ("place_hold", "other size", "release"),
    ("place_hold", "other size", "extend"),
    ("other size", "success", "leave group"),
    ("other size", "lower limit", "abandon"),
    ("success", "refund", "cancel_order"),
    ("success", "refund", "chargeback"),
    ("success", "chargeback", "cancel_sale"),
    ("success", "second success", "begin_refunds"),
    ("place_hold", "create_order", "cancel_sale"),
]
MONEY_TRIPLES = [
    ("refund", "chargeback", "cancel_order"),
    ("second refund", "begin_refunds", "cancel_sale"),
]
INBOX_OPERATIONS = (
    *("create_order", "success", "sweep", "purge"),
    *("shorter inbox_keep", "key reused", "stored replay"),
)
INBOX_PAIRS = list(itertools.combinations(INBOX_OPERATIONS, 2))
INBOX_TRIPLES = list(itertools.combinations(INBOX_OPERATIONS, 3))


@pytest.fixture
def interleaver(db: psycopg.Connection, connect: Callable[..., psycopg.Connection]) -> Interleaver:
    return Interleaver(db, connect)


@pytest.mark.parametrize("level", LEVELS, ids=lambda level: level.name.lower())
def test_every_interleaving_is_some_serial_order(
    interleaver: Interleaver, campaign: Campaign, level: IsolationLevel
) -> None:
    """At READ COMMITTED without a serialization failure; above it a request may fail with 40001."""
    keeps_snapshot = level > IsolationLevel.READ_COMMITTED
    for make in (*SITUATIONS, paid):
        situation = interleaver.prepare(make)
        pairs, triples = (INBOX_PAIRS, INBOX_TRIPLES) if make in LAPSED_WAITS else (PAIRS, TRIPLES)
        if make is paid:
            pairs, triples = MONEY_PAIRS, MONEY_TRIPLES
        every = pairs if make is paid else PAIRS
        for names in campaign.size(campaign.random.sample(pairs, 3), every):
            interleaver.run(situation, names, level, begun=not keeps_snapshot)
        for names in campaign.size([], triples):
            interleaver.run(situation, names, level, begun=True)
    assert interleaver.waits > 0
    assert (interleaver.not_serializable > 0) == keeps_snapshot
    campaign.record(
        f"{interleaver.schedules:,} interleavings at {level.name.replace('_', ' ')}: {len(PAIRS)} pairs of"
        f" {', '.join(OPERATIONS)}, each in {len(SITUATIONS)} situations; {len(TRIPLES)} triples of"
        f" {', '.join(MOST)} and others, each in {len(SITUATIONS) - len(LAPSED_WAITS)} of them;"
        f" {len(MONEY_PAIRS)} pairs with {', '.join(MONEY_BACK)} where an order was paid twice;"
        f" {len(INBOX_TRIPLES)} triples of {', '.join(INBOX_OPERATIONS)} in each of the {len(LAPSED_WAITS)}"
        " where the wait of stored webhooks has ended",
        f"all; {interleaver.not_serializable:,} with a 40001" if keeps_snapshot else "all; no deadlock",
        interleavings=interleaver.schedules,
    )


def test_every_interleaving_with_a_removal_of_tests(interleaver: Interleaver, campaign: Campaign) -> None:
    """At READ COMMITTED, where it is not refused."""
    level = IsolationLevel.READ_COMMITTED
    for make in SITUATIONS:
        situation = interleaver.prepare(make, is_test=True)
        others = [*OPERATIONS, FORGET]
        for other in campaign.size(campaign.random.sample(others, 4), others):
            interleaver.run(situation, (FORGET, other), level, begun=True)
        triples = itertools.combinations(MOST, 2)
        for pair in campaign.size([], list(triples)):
            interleaver.run(situation, (FORGET, *pair), level, begun=True)
    assert interleaver.waits > 0
    campaign.record(
        f"{interleaver.schedules:,} interleavings at READ COMMITTED of {FORGET} with {', '.join(OPERATIONS)}"
        f" in {len(SITUATIONS)} situations of a test product, and with pairs of"
        f" {', '.join(MOST)}",
        "all; no deadlock",
        interleavings=interleaver.schedules,
    )


def test_a_purge_keeps_an_order_with_a_stored_webhook(interleaver: Interleaver, campaign: Campaign) -> None:
    """The webhook's wait has ended, but it is locked when the order is created."""
    level = IsolationLevel.READ_COMMITTED
    names = ("shorter inbox_keep", "create_order", "failed", "purge")
    situation = interleaver.prepare(refused)
    if campaign.full:
        interleaver.run(situation, names, level, begun=True)
    else:
        calls = [OPERATIONS[name](situation) for name in names]
        for last in ((3, 3, 0), (0, 3, 3)):
            assert (
                interleaver.run_schedule(situation, calls, (0, 1, 2, 3, 0, 1, 1, 2, 2, *last), level) is None
            )
    campaign.record(
        f"{interleaver.schedules:,} interleavings at READ COMMITTED of {', '.join(names)}",
        interleavings=interleaver.schedules,
    )
