"""Money back: begin_refunds and record_refund(s)."""

from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal

import pytest

from tests.support.sql_calls import (
    LOCKED,
    age_inbox,
    apply_payment,
    audit,
    create_product,
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

BEGIN = "select * from flashsale.begin_refunds(%s)"
RECORD = "select * from flashsale.record_refund(%s, %s, %s, %s, %s)"


@pytest.fixture
def order(db):
    """An order of 99.00 USD, paid twice."""
    order = order_units(db, create_product(db), 1)
    apply_payment(db, "pays", order.order_id)
    apply_payment(db, "again", order.order_id)
    return order


def begin(conn, limit=100):
    return rows(conn, BEGIN, limit)


def record(conn, refund_key, payment_key, amount, status="done", kind="refund"):
    return tuple(row(conn, RECORD, refund_key, payment_key, Decimal(amount), status, kind))


def due(conn):
    return [tuple(each) for each in rows(
        conn, "select idempotency_key, amount::text, reason from flashsale.refunds_due order by received_at"
    )]  # fmt: skip


def end_leases(conn):
    conn.execute(
        "update flashsale_data.refunds set lease_ends_at = clock_timestamp() where status = 'requested'"
    )


def test_a_refund_is_begun_once_and_is_due_until_it_is_done(db, order):
    (asked,) = begin(db)
    assert asked[1:] == ("again", order.order_id, Decimal("99.00"), "USD", "paid_twice")
    assert begin(db) == []
    assert due(db) == [("again", "99.00", "paid_twice")]
    assert record(db, asked.refund_key, "again", "99.00") == ("again", Decimal("99.00"), 0, False)
    assert record(db, asked.refund_key, "again", "99.00") == ("again", Decimal("99.00"), 0, True)
    assert due(db) == []
    end_leases(db)
    assert begin(db) == []
    assert audit(db) == []


def test_after_a_crash_the_same_request_is_handed_out_again(db, order):
    (first,) = begin(db)
    end_leases(db)
    assert begin(db) == [first]
    end_leases(db)
    # A chargeback meanwhile changes what is owed, but not what was asked for.
    record(db, "dp_1", "again", "50.00", kind="chargeback")
    assert begin(db) == [first]


def test_a_failed_refund_is_due_again_under_another_key(db, order):
    (first,) = begin(db)
    assert record(db, first.refund_key, "again", "99.00", "failed") == ("again", 0, Decimal("99.00"), False)
    (second,) = begin(db)
    assert second.refund_key != first.refund_key
    record(db, second.refund_key, "again", "99.00")
    # The bank sends it back; done, delivered again, changes nothing.
    assert record(db, second.refund_key, "again", "99.00", "failed") == ("again", 0, Decimal("99.00"), False)
    assert record(db, second.refund_key, "again", "99.00") == ("again", 0, Decimal("99.00"), True)
    assert due(db) == [("again", "99.00", "paid_twice")]
    assert [
        tuple(each) for each in rows(db, "select status, attempt from flashsale.refunds order by attempt")
    ] == [
        ("failed", 1),
        ("failed", 2),
    ]
    assert audit(db) == []


def test_refunds_in_parts(db, order):
    assert record(db, "re_1", "again", "40.00") == ("again", Decimal("40.00"), Decimal("59.00"), False)
    assert due(db) == [("again", "59.00", "paid_twice")]
    (asked,) = begin(db)
    assert asked.amount == Decimal("59.00")
    record(db, asked.refund_key, "again", "59.00")
    assert due(db) == []
    assert audit(db) == []


def test_a_payment_that_pays_an_order_can_be_refunded_too(db, order):
    assert record(db, "re_goodwill", "pays", "9.00") == ("pays", Decimal("9.00"), 0, False)
    assert get_order(db, order.order_id).status == "paid"
    assert due(db) == [("again", "99.00", "paid_twice")]
    assert audit(db) == []


def test_what_is_more_than_was_captured_is_refused_and_a_chargeback_is_a_fact(db, order):
    with refused("SA021"):
        record(db, "re_1", "again", "99.01")
    record(db, "re_1", "again", "99.00")
    with refused("SA021"):
        record(db, "re_2", "again", "0.01")
    assert record(db, "dp_1", "again", "99.00", kind="chargeback") == ("again", Decimal("198.00"), 0, False)
    assert audit(db) == []


@pytest.mark.parametrize(
    ("arguments", "sqlstate"),
    [
        (("re_1", "nobody", "1"), "SA020"),
        (("re_1", "fails", "1"), "SA020"),
        (("", "again", "1"), "SA009"),
        (("r" * 256, "again", "1"), "SA009"),
        (("re_1", "", "1"), "SA009"),
        (("re_1", "again", "0"), "SA009"),
        (("re_1", "again", "-1"), "SA009"),
        (("re_1", "again", "NaN"), "SA009"),
        (("re_1", "again", "0.0000001"), "SA009"),
        (("re_1", "again", "1", "requested"), "SA009"),
        (("re_1", "again", "1", "done", "gift"), "SA009"),
    ],
)
def test_what_is_refused_changes_nothing(db, order, arguments, sqlstate):
    apply_payment(db, "fails", order.order_id, "failed")
    with refused(sqlstate):
        record(db, *arguments)
    assert rows(db, "select * from flashsale.refunds") == []


def test_a_key_belongs_to_one_payment_and_one_amount(db, order):
    record(db, "re_1", "again", "40.00")
    for arguments in (("pays", "40.00"), ("again", "41.00")):
        with refused("SA008"):
            record(db, "re_1", *arguments)


def test_a_payment_whose_order_never_came_is_refunded_without_a_sweep(db):
    unknown = next_order_id(db) + 5
    apply_payment(db, "lost", unknown, amount="99.00", currency="USD")
    assert begin(db) == []
    age_inbox(db)
    (asked,) = begin(db)
    assert asked[1:] == ("lost", unknown, Decimal("99.00"), "USD", "order_unknown")
    record(db, asked.refund_key, "lost", "99.00")
    assert due(db) == []
    assert audit(db) == []


def test_a_payment_whose_wait_has_ended_can_be_recorded_before_any_sweep(db):
    apply_payment(db, "lost", next_order_id(db) + 5, amount="99.00", currency="USD")
    age_inbox(db)
    assert record(db, "re_1", "lost", "99.00") == ("lost", Decimal("99.00"), 0, False)
    assert due(db) == []
    assert audit(db) == []


def test_a_refund_is_in_the_currency_of_its_payment(db, order):
    sql = "select refunded from flashsale.record_refund('re_1', 'again', 99, 'done', 'chargeback', %s)"
    with refused("SA009"):
        db.execute(sql, ('{"currency": "JPY"}',))
    assert due(db) == [("again", "99.00", "paid_twice")]
    assert value(db, sql, '{"currency": "usd"}') == 99
    assert audit(db) == []


@pytest.mark.parametrize("stored", [False, True])
def test_a_payment_of_nothing_is_never_due(db, stored):
    if stored:
        apply_payment(db, "nothing", next_order_id(db), amount="0", currency="USD")
        order = order_units(db, create_product(db), 1)
    else:
        order = order_units(db, create_product(db), 1)
        apply_payment(db, "nothing", order.order_id, amount="0", currency="USD")
    assert tuple(row(db, "select result, refund_reason, refund_state from flashsale_data.payments")) == (
        "amount_mismatch", "amount_mismatch", "settled",
    )  # fmt: skip
    assert get_order(db, order.order_id).status == "pending_payment"
    assert due(db) == []
    assert audit(db) == []


def test_a_payment_of_nothing_whose_order_never_came_is_never_due(db):
    apply_payment(db, "nothing", next_order_id(db) + 5, amount="0", currency="USD")
    age_inbox(db)
    assert due(db) == []
    assert begin(db) == []
    assert value(db, "select refund_state from flashsale_data.payments") == "settled"
    assert due(db) == []
    assert audit(db) == []


def test_an_unknown_amount_is_left_to_operators(db):
    apply_payment(db, "lost", next_order_id(db) + 5)
    age_inbox(db)
    assert begin(db) == []
    assert due(db) == [("lost", None, "order_unknown")]
    record(db, "re_1", "lost", "99.00")
    assert due(db) == []
    assert audit(db) == []


def test_two_workers_never_get_one_refund(db, connect):
    order = order_units(db, create_product(db), 1)
    for i in range(40):
        apply_payment(db, f"p{i}", order.order_id)
    conns = [connect() for _ in range(8)]
    with ThreadPoolExecutor(8) as workers:
        begun = [each for found in workers.map(lambda conn: begin(conn, 5), conns) for each in found]
    keys = [each.payment_key for each in begun]
    assert len(keys) == len(set(keys))
    assert len(keys) + len(begin(db)) == 39


def test_a_worker_passes_over_what_another_has_taken(db, connect):
    order = order_units(db, create_product(db), 1)
    for i in range(3):
        apply_payment(db, f"p{i}", order.order_id)
    first = connect()
    first.execute("begin")
    (taken,) = begin(first, 1)
    db.execute("set lock_timeout = '5s'")
    (other,) = begin(db)
    assert {taken.payment_key, other.payment_key} == {"p1", "p2"}
    first.execute("commit")
    assert begin(db) == []


def test_records_of_one_payment_are_written_in_turn(db, order, connect):
    first, second = connect(), connect()
    first.execute("begin")
    record(first, "re_1", "again", "60.00")
    with ThreadPoolExecutor(1) as other:
        answer = other.submit(outcome, record, second, "re_2", "again", "60.00")
        wait_until_blocked(second, watcher=db)
        first.execute("commit")
        assert answer.result() == "SA021"
    assert due(db) == [("again", "39.00", "paid_twice")]


def test_a_batch_does_not_wait_for_a_payment_that_is_locked(db, order, connect):
    first = connect()
    first.execute("begin")
    record(first, "re_1", "again", "60.00")
    batch = (
        "select * from flashsale.record_refunds(array[1, 2], '{re_2, re_3}', '{again, pays}', '{1, 1}',"
        " '{done, done}')"
    )
    db.execute("set lock_timeout = '10s'")
    assert [each.sqlstate for each in rows(db, batch)] == [LOCKED, None]
    first.execute("commit")
    assert [each.replayed for each in rows(db, batch)] == [False, True]


def test_a_batch_answers_each_request(db, order):
    outcomes = rows(
        db,
        "select * from flashsale.record_refunds(array[1, 2, 3, 4], array['a', 'a', 'b', 'c'],"
        " '{again, again, nobody, again}', '{40, 40, 1, 60}', '{done, done, done, done}')",
    )
    assert [
        (each.request_no, each.sqlstate, each.refunded, each.still_due, each.replayed) for each in outcomes
    ] == [
        (1, None, 40, Decimal("59.00"), False),
        (2, None, 40, Decimal("59.00"), True),
        (3, "SA020", None, None, False),
        (4, "SA021", None, None, False),
    ]
    assert outcomes[3].members == {"refundable": 59.00}


def test_every_step_is_in_the_ledger(db, order):
    (asked,) = begin(db)
    record(db, asked.refund_key, "again", "99.00")
    record(db, asked.refund_key, "again", "99.00", "failed")
    found = rows(
        db,
        "select kind, payment_key, order_id, data ->> 'refund_key' as refund_key, data ->> 'amount' as amount"
        " from flashsale.read_events(0, 1000) where kind like 'refund%%'",
    )
    assert [tuple(each) for each in found] == [
        ("refund_due", "again", order.order_id, None, None),
        ("refund_requested", "again", order.order_id, asked.refund_key, "99.00"),
        ("refund_done", "again", order.order_id, asked.refund_key, "99.00"),
        ("refund_failed", "again", order.order_id, asked.refund_key, "99.00"),
    ]


def test_refunds_are_begun_at_read_committed_only(db, order):
    with db.transaction(), refused("SA009"):
        db.execute("set transaction isolation level repeatable read")
        begin(db)
    with refused("SA009"):
        begin(db, 0)


def test_the_audit_finds_a_refund_that_is_not_counted(db, order):
    record(db, "re_1", "again", "40.00")
    assert value(db, "select count(*) from flashsale.audit()") == 0
    db.execute("update flashsale_data.payments set refunded = 39 where idempotency_key = 'again'")
    assert {each.check_name for each in rows(db, "select * from flashsale.audit()")} == {"refunds_add_up"}
