"""Transactions: random calls in random transactions of ten sessions at once, at every isolation level, with
savepoints, timeouts, two-phase commit, cancelled and terminated backends, rewritten tables and reloads.

What must hold afterwards follows from the acknowledged responses and the ledger.
"""

import time
from collections import Counter

import psycopg
import pytest

from proof.campaign import Campaign
from proof.transactions.history import History, Response, Transaction
from proof.transactions.round import Round, run_round
from proof.transactions.state import archive_removed, read_state
from proof.transactions.stock import insufficient_stock_is_true
from tests.support import sql_calls as calls
from tests.support.waiting import wait_until


@pytest.fixture
def archived(db: psycopg.Connection) -> psycopg.Connection:
    """A connection to a database that archives deleted rows."""
    archive_removed(db)
    return db


def test_random_transactions_keep_every_rule(
    archived: psycopg.Connection, database_url: str, campaign: Campaign
) -> None:
    seconds, until = campaign.size(3, 12), time.monotonic() + campaign.size(0, 900)
    statuses, functions, injected = Counter(), Counter(), Counter()
    rounds = 0
    while rounds == 0 or time.monotonic() < until:
        rounds += 1
        seed = f"{campaign.random.getrandbits(32):08x}"
        played = run_round(archived, database_url, seed, seconds)
        violations = played.violations(archived)
        assert not violations, played.report(violations)
        statuses.update(transaction.status for transaction in played.history.transactions)
        functions.update(response.function for _, response in played.history.responses())
        injected += played.injected
    assert min(statuses["committed"], functions["place_hold"], functions["apply_payment"]) > 0
    campaign.record(
        f"{statuses.total():,} transactions of ten sessions, {statuses['committed']:,} of them committed,"
        f" with {functions.total():,} requests, in {rounds} rounds; {injected['cancel']:,} calls cancelled,"
        f" {injected['terminate']:,} backends terminated, {injected['vacuum full']:,} tables rewritten,"
        f" {injected['reload']:,} reloads",
        transactions=statuses.total(),
        requests=functions.total(),
    )


TAMPERING = {
    "update flashsale_data.inbox set stored = stored + 1": "the inbox is counted",
    "update flashsale_data.stock set total_stock = total_stock + 1": "the ledger adds up",
    "delete from flashsale_data.payments where status = 'success'": "captured money is in one book",
    "update flashsale_data.payments set order_id = -order_id": "webhooks are as sent",
    "update flashsale_data.payments set result = 'no_change'": "a result is final",
    "update flashsale_data.holds set qty = qty + 1": "holds are as answered",
    "update flashsale_data.orders set amount = amount + 1": "orders are as answered",
    "update flashsale_data.orders set status = 'paid', cancel_reason = null": "captured money is in one book",
    "update flashsale_data.holds set status = 'active'": "a row is in the state of its last event",
    "delete from flashsale_data.payments where result <> 'stored'": "only finished rows are removed",
    "update flashsale_data.events set available_delta = -1 where available_delta = 0": "each event is legal",
    "insert into flashsale_data.events (kind, at) values ('refund_due', now())": "each event is read",
}
"""changes that only a superuser can make, and the rule that each breaks"""


def told_of_a_payment(conn: psycopg.Connection, played: Round) -> bool:
    """A round may be too short for one; the rule about results then has nothing to judge."""
    recorded = {key for (key,) in conn.execute("select idempotency_key from flashsale_data.payments")}
    return any(
        response.outcome.result == "applied" and response.request[0] in recorded
        for _, response in played.history.committed("apply_payment")
    )


def test_the_rules_detect_tampering(
    archived: psycopg.Connection, database_url: str, campaign: Campaign
) -> None:
    """Control: the rules fail for other tables, and for another history."""
    played = next(
        played
        for number in range(1, 21)
        if (played := run_round(archived, database_url, f"control {campaign.seed} {number}", 1))
        and told_of_a_payment(archived, played)
    )
    broken_before = {violation.rule for violation in played.violations(archived)}
    for change, rule in TAMPERING.items():
        assert rule not in broken_before
        with archived.transaction(force_rollback=True):
            archived.execute(change)
            assert rule in {violation.rule for violation in played.violations(archived)}, change
    for _, response in played.history.committed("place_hold"):
        response.outcome = "SA002"
    broken = {violation.rule for violation in played.violations(archived)}
    assert {"insufficient stock is true", "holds are as answered"} <= broken


def test_an_order_that_is_rolled_back_takes_units_in_its_own_transaction(
    archived: psycopg.Connection,
) -> None:
    calls.change_settings(archived, hold_time="200 milliseconds")
    product = calls.create_product(archived, 1)
    transactions = [Transaction("s1", "read committed", time.time()) for _ in range(2)]

    def call(transaction: Transaction, function: str, *request: object) -> Response:
        began = time.time()
        outcome = calls.outcome(getattr(calls, function), archived, *request)
        transaction.responses.append(Response(function, request, outcome, began, time.time()))
        return transaction.responses[-1]

    hold = call(transactions[0], "place_hold", product, 1, None).outcome
    transactions[0].status = "committed"
    with archived.transaction(force_rollback=True):
        call(transactions[1], "create_order", hold.hold_id, None)
        wait_until(lambda: time.time() > hold.expires_at.timestamp(), "the hold has expired")
        with archived.transaction(force_rollback=True):
            assert call(transactions[1], "place_hold", product, 1, None).outcome == "SA002"
    history, state = History(transactions), read_state(archived)
    assert [*insufficient_stock_is_true(history, state)] == []
    del transactions[1].responses[0]
    assert [violation.rule for violation in insufficient_stock_is_true(history, state)] == [
        "insufficient stock is true"
    ]
