"""Refunds that come before their payment: record_refund with p_await_payment."""

from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal

import pytest

from tests.support.sql_calls import (
    age_inbox,
    apply_payment,
    audit,
    create_product,
    expire_due,
    get_order,
    next_order_id,
    order_units,
    outcome,
    refused,
    row,
    rows,
    value,
)
from tests.support.waiting import wait_until_blocked

RECORD = "select * from flashsale.record_refund(%s, %s, %s, %s, %s, p_await_payment => %s)"


@pytest.fixture
def order(db):
    """A pending order of 99.00 USD."""
    return order_units(db, create_product(db), 1)


def record(conn, refund_key, payment_key, amount, status="done", kind="refund", *, awaits=True):
    return tuple(row(conn, RECORD, refund_key, payment_key, amount and Decimal(amount), status, kind, awaits))


def due(conn):
    return [tuple(each) for each in rows(
        conn, "select idempotency_key, amount::text, reason from flashsale.refunds_due order by received_at"
    )]  # fmt: skip


def refunds(conn):
    return [tuple(each) for each in rows(
        conn, "select refund_key, amount::text, currency, status from flashsale.refunds order by refund_key"
    )]  # fmt: skip


def refunded(conn, key):
    return value(conn, "select refunded::text from flashsale_data.payments where idempotency_key = %s", key)


def states(conn):
    return dict(rows(
        conn, "select idempotency_key, refund_state from flashsale_data.payments order by arrival"
    ))  # fmt: skip


def test_a_refund_waits_for_its_payment(db, order):
    kept = ("pays", None, None, False)
    assert record(db, "re_1", "pays", "40.00") == kept
    assert record(db, "re_1", "pays", "40.00") == (*kept[:3], True)
    assert audit(db) == []
    assert apply_payment(db, "pays", order.order_id).result == "applied"
    assert get_order(db, order.order_id).status == "paid"
    assert refunded(db, "pays") == "40.00"
    assert refunds(db) == [("re_1", "40.00", "USD", "done")]
    assert due(db) == []
    assert record(db, "re_1", "pays", "40.00") == ("pays", Decimal("40.00"), 0, True)
    assert value(db, "select count(*) from flashsale_data.awaited_payments") == 0
    assert audit(db) == []


def test_without_being_told_to_wait_it_is_refused(db):
    with refused("SA020"):
        record(db, "re_1", "pays", "40.00", awaits=False)
    assert refunds(db) == []


def test_a_payment_that_is_due_back_and_was_refunded_before_it_came_is_settled(db, order):
    record(db, "re_1", "again", "99.00")
    record(db, "re_2", "third", "60.00")
    for key in ("pays", "again", "third"):
        apply_payment(db, key, order.order_id)
    assert due(db) == [("third", "39.00", "paid_twice")]
    assert audit(db) == []


def test_failed_overrides_done_before_the_payment_comes_too(db, order):
    record(db, "re_1", "pays", "40.00")
    record(db, "re_1", "pays", "40.00", "failed")
    assert record(db, "re_1", "pays", "40.00") == ("pays", None, None, True)
    record(db, "re_2", "pays", "10.00", "failed")
    record(db, "dp_1", "pays", "99.00", kind="chargeback")
    apply_payment(db, "pays", order.order_id)
    assert refunded(db, "pays") == "99.00"
    assert audit(db) == []


def test_a_void_returns_what_is_left(db, order):
    record(db, "re_1", "pays", "40.00")
    record(db, "v_1", "pays", None, kind="void")
    record(db, "v_2", "pays", None, kind="void")
    apply_payment(db, "pays", order.order_id)
    assert refunded(db, "pays") == "99.00"
    assert refunds(db) == [
        ("re_1", "40.00", "USD", "done"),
        ("v_1", "59.00", "USD", "done"),
        ("v_2", None, "USD", "done"),
    ]
    assert audit(db) == []
    assert record(db, "v_1", "pays", None, kind="void")[3]
    # The bank sends it back.
    record(db, "v_1", "pays", "59.00", "failed", "void")
    assert refunded(db, "pays") == "40.00"
    assert audit(db) == []


def test_of_a_payment_that_waits_for_its_order(db):
    unknown = next_order_id(db)
    apply_payment(db, "early", unknown)
    # Known already: nothing waits for it.
    assert record(db, "re_1", "early", "99.00", awaits=False) == ("early", Decimal("99.00"), 0, False)
    record(db, "re_2", "earlier", "99.00")
    apply_payment(db, "earlier", unknown)
    assert refunded(db, "earlier") == "99.00"
    order = order_units(db, create_product(db), 1)
    assert (order.order_id, order.status) == (unknown, "paid")
    assert due(db) == []
    assert audit(db) == []


def test_of_a_stored_payment_that_its_order_does_not_need(db):
    unknown = next_order_id(db)
    for key in ("pays", "again", "third"):
        apply_payment(db, key, unknown, amount="99.00", currency="USD")
    record(db, "re_1", "again", "99.00")
    record(db, "re_2", "third", "60.00")
    order_units(db, create_product(db), 1)
    assert states(db) == {"pays": None, "again": "settled", "third": "due"}
    assert due(db) == [("third", "39.00", "paid_twice")]
    assert audit(db) == []


@pytest.mark.parametrize("swept", [True, False])
def test_of_a_payment_whose_order_never_came(db, swept):
    unknown = next_order_id(db) + 5
    for key, amount in (("whole", "99.00"), ("part", "60.00")):
        record(db, f"re {key}", key, amount)
        apply_payment(db, key, unknown, amount="99.00", currency="USD")
    age_inbox(db)
    if swept:
        expire_due(db)
        assert states(db) == {"whole": "settled", "part": "due"}
    assert due(db) == [("part", "39.00", "order_unknown")]
    assert audit(db) == []


def test_the_ledger_has_it_when_the_payment_comes(db, order):
    record(db, "re_1", "pays", "40.00")
    record(db, "re_2", "pays", "10.00", "failed")
    read = (
        "select kind, order_id, product_id is not null as of_product, data ->> 'refund_key' as refund_key,"
        " data ->> 'amount' as amount, data ->> 'currency' as currency"
        " from flashsale.read_events(0, 1000) where kind in ('order_paid', 'refund_done', 'refund_failed')"
    )
    assert rows(db, read) == []
    apply_payment(db, "pays", order.order_id)
    assert [tuple(each) for each in rows(db, read)] == [
        ("order_paid", order.order_id, True, None, None, None),
        ("refund_done", order.order_id, True, "re_1", "40.00", "USD"),
        ("refund_failed", order.order_id, True, "re_2", "10.00", "USD"),
    ]


def test_a_refund_and_its_payment_cannot_miss_each_other(db, order, connect):
    payer, recorder = connect(), connect()
    for first, second in ((payer, recorder), (recorder, payer)):
        key = f"p {first.info.backend_pid}"
        calls = {payer: (apply_payment, key, order.order_id), recorder: (record, f"re {key}", key, "1.00")}
        first.execute("begin")
        calls[first][0](first, *calls[first][1:])
        with ThreadPoolExecutor(1) as other:
            answer = other.submit(outcome, calls[second][0], second, *calls[second][1:])
            wait_until_blocked(second, watcher=db)
            first.execute("commit")
            answer.result(30)
        assert refunded(db, key) == "1.00"
        assert audit(db) == []


def test_a_snapshot_that_does_not_show_the_other_is_refused(db, order, connect):
    old = connect()
    for call, unseen in (
        ((apply_payment, "pays", order.order_id), (record, "re_1", "pays", "1.00")),
        ((record, "re_2", "again", "1.00"), (apply_payment, "again", order.order_id)),
    ):
        old.execute("begin isolation level repeatable read; select 1")
        unseen[0](db, *unseen[1:])
        assert outcome(call[0], old, *call[1:]) == "40001"
        old.execute("rollback")
        call[0](db, *call[1:])
    assert (refunded(db, "pays"), refunded(db, "again")) == ("1.00", "1.00")
    assert audit(db) == []


def test_a_failed_payment_under_the_key_is_not_the_payment(db, order):
    record(db, "re_1", "pays", "40.00")
    apply_payment(db, "pays", order.order_id, "declined")
    assert audit(db) == []
    with refused("SA020"):
        record(db, "re_2", "pays", "40.00")


def test_a_refund_that_is_being_purged_is_recorded_anew(db, connect):
    record(db, "v_1", "foreign", "40.00", kind="void")
    purger, recorder = connect(), connect()
    purger.execute("begin")
    purger.execute("select flashsale.purge('0')")
    with ThreadPoolExecutor(1) as other:
        answer = other.submit(record, recorder, "v_1", "foreign", None, "failed", "void")
        wait_until_blocked(recorder, watcher=db)
        purger.execute("commit")
        assert answer.result(30) == ("foreign", None, None, False)
    assert refunds(db) == [("v_1", None, None, "failed")]
    assert audit(db) == []


def test_a_purge_removes_those_whose_payment_never_came(db, order):
    record(db, "re_1", "foreign", "40.00")
    record(db, "re_2", "pays", "40.00")
    apply_payment(db, "pays", order.order_id)
    purge = "select rows from flashsale.purge(%s) where removed = 'refunds'"
    assert value(db, purge, "1 day") == 0
    assert value(db, purge, "0") == 1
    assert [each[0] for each in refunds(db)] == ["re_2"]
    assert audit(db) == []
    # It comes after all.
    assert apply_payment(db, "foreign", order.order_id).result == "refund_due"
    assert due(db) == [("foreign", "99.00", "paid_twice")]
    assert audit(db) == []
