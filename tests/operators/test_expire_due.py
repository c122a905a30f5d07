"""expire_due(): records what has lapsed; no answer depends on it."""

import pytest

from tests.operators.expiries import marks, statuses
from tests.support.sale_steps import (
    audit,
    available,
    create_order,
    create_product,
    expire_due,
    hold_status,
    make_short,
    one,
    order,
    order_status,
    pay,
    place_hold,
    place_many,
    refused,
    wait_until_lapsed,
)
from tests.support.sql_calls import age_inbox

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("books_balance")]


def test_a_lapsed_hold_is_recorded_as_expired(db):
    product = create_product(db, stock=5)
    make_short(db)
    hold = place_hold(db, product, 2)
    wait_until_lapsed(db)
    assert expire_due(db) == 1
    assert hold_status(db, hold) == "expired"
    ledger = "select kind, available_delta from flashsale_data.events where hold_id = %s order by event_id"
    assert db.execute(ledger, (hold,)).fetchall() == [("hold_placed", -2), ("hold_expired", 2)]


def test_an_overdue_order_is_recorded_as_cancelled(db):
    product = create_product(db, stock=5)
    make_short(db)
    overdue = order(db, product, 2)
    wait_until_lapsed(db)
    assert expire_due(db) == 1
    assert order_status(db, overdue) == ("cancelled", "payment_overdue")
    ledger = (
        "select kind, available_delta, data from flashsale_data.events where order_id = %s order by event_id"
    )
    assert db.execute(ledger, (overdue,)).fetchall() == [
        ("order_created", 0, None),
        ("order_cancelled", 2, {"cancel_reason": "payment_overdue"}),
    ]


def test_unexpired_holds_and_orders_are_not_changed(db):
    product = create_product(db)
    held, ordered = place_hold(db, product), order(db, product)
    assert expire_due(db) == 0
    assert hold_status(db, held) == "active"
    assert order_status(db, ordered) == ("pending_payment", None)


def test_final_states_are_not_changed(db):
    product = create_product(db)
    make_short(db)
    paid, failed = order(db, product), order(db, product)
    pay(db, paid)
    pay(db, failed, "failed")
    released = place_hold(db, product)
    db.execute("select flashsale.release_hold(%s)", (released,))
    wait_until_lapsed(db)
    assert expire_due(db) == 0
    assert order_status(db, paid) == ("paid", None)
    assert order_status(db, failed) == ("cancelled", "payment_failed")
    assert hold_status(db, released) == "released"


def test_a_released_hold_is_not_expired_with_those_of_its_instant(db):
    product = create_product(db)
    make_short(db)
    place_many(db, product, 2)
    released, lapsed = (hold for (hold,) in db.execute("select hold_id from flashsale_data.holds").fetchall())
    db.execute("select flashsale.release_hold(%s)", (released,))
    wait_until_lapsed(db)
    assert expire_due(db) == 1
    assert (hold_status(db, released), hold_status(db, lapsed)) == ("released", "expired")


def test_a_second_call_records_nothing(db):
    product = create_product(db)
    make_short(db)
    place_hold(db, product)
    order(db, product)
    wait_until_lapsed(db)
    assert [expire_due(db), expire_due(db)] == [2, 0]


def test_the_limit_is_respected(db):
    product = create_product(db)
    make_short(db)
    place_many(db, product, 5)
    wait_until_lapsed(db)
    assert [expire_due(db, 2) for _ in range(4)] == [2, 2, 1, 0]
    assert statuses(db) == {"expired": 5}
    assert marks(db) == [1] * 5


def test_the_limit_counts_holds_not_units(db):
    product = create_product(db, stock=1000)
    make_short(db)
    place_hold(db, product, 900)
    wait_until_lapsed(db)
    assert expire_due(db, 1) == 1


@pytest.mark.parametrize("limit", [0, -1, -(2**31), None])
def test_a_limit_below_one_is_refused(db, limit):
    with refused("SA009"):
        expire_due(db, limit)


def test_the_largest_limit_is_taken(db):
    product = create_product(db)
    make_short(db)
    place_many(db, product, 3)
    wait_until_lapsed(db)
    assert expire_due(db, 2**31 - 1) == 3


def test_lapsed_units_return_to_an_idle_product(db):
    product = create_product(db, stock=5)
    make_short(db)
    place_hold(db, product, 2)
    order(db, product, 1)
    wait_until_lapsed(db)
    counters = "select held, awaiting from flashsale_data.stock where product_id = %s"
    assert db.execute(counters, (product,)).fetchone() == (2, 1)
    expire_due(db)
    assert db.execute(counters, (product,)).fetchone() == (0, 0)
    assert one(db, "select count(*) from flashsale_data.lapses") == 0


def test_a_sweep_changes_no_response(db):
    product = create_product(db, stock=5)
    make_short(db)
    hold, overdue = place_hold(db, product, 2), order(db, product, 1)
    wait_until_lapsed(db)

    def answers():
        return [
            db.execute(query, (number,)).fetchone()
            for query, number in [
                ("select available_stock from flashsale.get_product(%s)", product),
                ("select * from flashsale.get_hold(%s)", hold),
                ("select * from flashsale.get_order(%s)", overdue),
            ]
        ]

    before = answers()
    assert expire_due(db) == 2
    assert answers() == before


def test_five_thousand_holds_that_lapse_at_one_instant_are_available_at_it(db):
    product = create_product(db, stock=5000)
    for _ in range(5):
        place_many(db, product, 1000)
    instant = one(
        db, "select date_bin('100 milliseconds', clock_timestamp() + interval '2 seconds', 'epoch')"
    )
    with db.transaction():
        db.execute("update flashsale_data.holds set expires_at = %s", (instant,))
        db.execute("delete from flashsale_data.lapses")
        db.execute("insert into flashsale_data.lapses values (%s, %s, 5000, 0)", (product, instant))
    assert audit(db) == []

    seen = set()
    while True:
        before = one(db, "select clock_timestamp()")
        found = available(db, product)
        after = one(db, "select clock_timestamp()")
        if after < instant:
            assert found == 0
        elif before >= instant:
            assert found == 5000
            break
        seen.add(found)
    assert 0 in seen
    buyer = place_hold(db, product, 5000)
    assert one(db, "select status from flashsale.get_hold(%s)", buyer) == "active"
    assert statuses(db) == {"active": 5001}, "nothing has swept"
    assert audit(db) == []
    assert [expire_due(db) for _ in range(6)] == [1000] * 5 + [0]
    assert available(db, product) == 0


def test_instants_without_rows_to_record_do_not_end_the_sweep(db, connect):
    """Each hold that becomes an order leaves an instant without units: thousands may precede others."""
    product = create_product(db)
    db.execute(
        "insert into flashsale_data.lapses (product_id, lapses_at)"
        " select %s, now() - n * interval '100 milliseconds' from generate_series(10, 2500) n",
        (product,),
    )
    make_short(db)
    hold = place_hold(db, product)
    wait_until_lapsed(db)
    assert expire_due(db) == 1
    assert hold_status(db, hold) == "expired"
    connect().execute("call flashsale.sweep()")
    assert one(db, "select count(*) from flashsale_data.lapses") == 0


def test_a_captured_payment_whose_order_never_came_becomes_a_refund(db):
    pay(db, 1001, key="kept", amount="99.00", currency="USD")
    pay(db, 1002, "failed", key="dropped")
    age_inbox(db)
    pay(db, 1003, key="fresh")
    assert expire_due(db) == 2
    left = db.execute("select idempotency_key, result from flashsale.payments order by 1").fetchall()
    assert left == [("fresh", "stored"), ("kept", "refund_due")]
    assert one(db, "select stored from flashsale_data.inbox") == 1
    ledger = "select kind from flashsale_data.events where payment_key = 'kept' order by event_id"
    assert [kind for (kind,) in db.execute(ledger)] == ["payment_stored", "refund_due"]


def test_the_inbox_respects_the_limit_too(db):
    for number in range(5):
        pay(db, 1001 + number)
    age_inbox(db)
    assert [expire_due(db, 2) for _ in range(4)] == [2, 2, 1, 0]


def test_an_order_whose_hold_and_payment_lapse_at_one_instant_is_recorded_once(db):
    product = create_product(db)
    make_short(db)
    hold = place_hold(db, product)
    made = create_order(db, hold)
    db.execute(
        "update flashsale_data.orders o set payment_due_at = h.expires_at"
        " from flashsale_data.holds h where h.hold_id = o.hold_id"
    )
    db.execute("delete from flashsale_data.lapses")
    db.execute(
        "insert into flashsale_data.lapses"
        " select product_id, payment_due_at, 0, qty from flashsale_data.orders"
    )
    wait_until_lapsed(db)
    assert expire_due(db) == 1
    assert order_status(db, made) == ("cancelled", "payment_overdue")
    assert hold_status(db, hold) == "ordered"
