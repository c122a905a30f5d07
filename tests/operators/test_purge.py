"""purge(): deletes what is finished and old; paid orders, captured payments and refunds stay."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from psycopg import IsolationLevel

from tests.support.sale_steps import (
    audit,
    available,
    create_product,
    expire_due,
    make_short,
    one,
    order,
    order_status,
    pay,
    place_hold,
    refused,
    wait_until_lapsed,
)
from tests.support.waiting import wait_until, wait_until_blocked

pytestmark = pytest.mark.slow

NOTHING = {
    "orders": 0,
    "payments": 0,
    "holds": 0,
    "operations": 0,
    "events": 0,
    "rejected_webhooks": 0,
    "refunds": 0,
}


def purge(conn, older_than="0"):
    return dict(conn.execute("select removed, rows from flashsale.purge(%s)", (older_than,)).fetchall())


def count(db, table, condition="true"):
    return one(db, f"select count(*) from flashsale_data.{table} where {condition}")


def grow_old(db, age):
    """Move all rows back in time by `age`."""
    for table, column in [("holds", "placed_at"), ("orders", "created_at"), ("events", "at")]:
        db.execute(f"update flashsale_data.{table} set {column} = {column} - %s::interval", (age,))


def stay(db):
    """The rows that a purge must not change: paid orders, captured payments, refunds, products, stock."""
    return [
        db.execute(query).fetchall()
        for query in [
            "select * from flashsale_data.orders where status = 'paid' order by order_id",
            "select * from flashsale_data.payments where status = 'success' order by arrival",
            "select * from flashsale.refunds_due order by idempotency_key",
            "select * from flashsale_data.products order by product_id",
            "select product_id, available_stock, paid from flashsale.stock order by product_id",
        ]
    ]


@pytest.fixture
def product(db):
    """A product with a hold and an order in each state."""
    product = create_product(db, stock=50)
    make_short(db)
    lapsed, overdue = place_hold(db, product, 2), order(db, product, 3)
    wait_until_lapsed(db)
    expire_due(db)
    db.execute("select flashsale.change_settings('1 hour', '1 hour')")
    assert (lapsed, overdue) != (None, None)
    released = place_hold(db, product)
    db.execute("select flashsale.release_hold(%s)", (released,))
    paid, paid_twice, failed, cancelled = (order(db, product) for _ in range(4))
    pay(db, paid, key="paid")
    pay(db, paid, "failed", key="failed in vain")
    pay(db, paid_twice, key="once")
    pay(db, paid_twice, key="twice")
    pay(db, failed, "failed", key="failed")
    pay(db, cancelled, "cancelled", key="cancelled")
    pay(db, cancelled, key="cancelled, then paid")
    pay(db, 1_000_000, key="stored")
    pay(db, 1_000_001, "failed", key="stored, and failed")
    return product


def test_finished_rows_are_purged(db, product):
    removed = purge(db)
    # The lapsed hold, the released one and those of two orders; the overdue order and the failed one.
    assert removed["holds"] == 4
    assert removed["orders"] == 2
    assert removed["payments"] == 1
    assert removed["events"] > 10
    assert count(db, "holds", "status in ('expired', 'released')") == 0
    assert count(db, "events") == 0


def test_paid_orders_and_captured_payments_stay(db, product):
    before = stay(db)
    purge(db)
    assert stay(db) == before
    assert [
        key for (key,) in db.execute("select idempotency_key from flashsale.payments order by received_at")
    ] == [
        "paid",
        "failed in vain",
        "once",
        "twice",
        "cancelled",
        "cancelled, then paid",
        "stored",
        "stored, and failed",
    ]


def test_unfinished_rows_stay(db, product):
    held, awaiting = place_hold(db, product, 2), order(db, product, 3)
    purge(db)
    assert one(db, "select status from flashsale.get_hold(%s)", held) == "active"
    assert order_status(db, awaiting) == ("pending_payment", None)
    assert available(db, product) == 50 - 2 - 2 - 3


def test_lapsed_rows_that_are_not_swept_stay(db):
    product = create_product(db)
    make_short(db)
    place_hold(db, product)
    order(db, product)
    wait_until_lapsed(db)
    assert purge(db) == NOTHING | {"events": 4}
    assert audit(db) == []
    assert expire_due(db) == 2
    assert purge(db) == NOTHING | {"orders": 1, "holds": 2, "events": 2}
    assert audit(db) == []


def test_the_ledger_still_adds_up(db, product):
    assert audit(db) == []
    purge(db)
    assert audit(db) == []
    assert one(db, "select available_delta from flashsale_data.ledger_carried") == available(db, product)
    pay(db, order(db, product, 4))
    place_hold(db, product, 5)
    assert audit(db) == []
    purge(db)
    assert audit(db) == []
    assert one(db, "select available_delta from flashsale_data.ledger_carried") == available(db, product)


def test_a_second_purge_finds_nothing(db, product):
    purge(db)
    assert purge(db) == NOTHING


def test_only_older_rows_are_purged(db, product):
    grow_old(db, "40 days")
    young = place_hold(db, product)
    db.execute("select flashsale.release_hold(%s)", (young,))
    failed = order(db, product)
    pay(db, failed, "failed")
    assert purge(db, "41 days") == NOTHING
    removed = purge(db, "39 days")
    assert (removed["orders"], removed["holds"]) == (2, 4)
    assert count(db, "holds", "status = 'released'") == 1
    assert order_status(db, failed) == ("cancelled", "payment_failed")
    assert count(db, "events") == 5, "what happened to the young ones"
    assert audit(db) == []


def test_events_are_removed_from_the_front_only(db, product):
    """An old event after a young one stays: only a prefix of the ledger is deleted."""
    db.execute("update flashsale_data.events set at = at - interval '40 days' where event_id <> 3")
    assert purge(db, "39 days")["events"] == 2
    assert one(db, "select min(event_id) from flashsale_data.events") == 3
    assert audit(db) == []


def test_a_reader_goes_on_after_a_purge(db, product):
    last = one(db, "select max(event_id) from flashsale_data.events")
    purge(db)
    place_hold(db, product)
    read = db.execute("select kind from flashsale.read_events(%s, 10)", (last,)).fetchall()
    assert read == [("hold_placed",)]


@pytest.mark.parametrize("older_than", ["1 day", "30 days", "1 year", "100 years"])
def test_no_younger_row_is_purged(db, product, older_than):
    assert purge(db, older_than) == NOTHING


@pytest.mark.parametrize(
    "older_than",
    [None, "-1 microsecond", "-1 day", "178000000 years", "-178000000 years", "-12 months 360 days"],
)
def test_an_invalid_age_is_refused(db, older_than):
    with refused("SA009"):
        purge(db, older_than)


def test_locked_rows_are_skipped_without_a_wait(db, connect, product):
    failed = one(db, "select order_id from flashsale_data.orders where cancel_reason = 'payment_failed'")
    other = connect(autocommit=False)
    pay(other, failed)  # revives it
    db.execute("set lock_timeout = '1ms'")
    assert purge(db)["orders"] == 1
    other.commit()
    assert order_status(db, failed) == ("paid", None)
    assert audit(db) == []


def test_a_payment_for_an_order_just_being_purged_is_not_lost(db, connect, product):
    failed = one(db, "select order_id from flashsale_data.orders where cancel_reason = 'payment_failed'")
    purger, provider = connect(autocommit=False), connect()
    purge(purger)
    with ThreadPoolExecutor(1) as pool:
        paid = pool.submit(pay, provider, failed, key="late")
        wait_until_blocked(provider, watcher=db)
        purger.commit()
        assert paid.result() == "stored"
    assert one(db, "select result from flashsale.payments where idempotency_key = 'late'") == "stored"
    assert audit(db) == []


def test_a_purge_during_a_sale_passes_the_audit(db, connect, product):
    seller = connect(autocommit=False)
    place_hold(seller, product, 2)
    purge(db)
    seller.commit()
    assert audit(db) == []
    assert available(db, product) == 50 - 2 - 2


def test_an_order_with_a_stored_webhook_waits_for_the_sweep(db, connect):
    """Its wait had ended and a sweep had locked it when its order was created; the sweep was rolled back."""
    product, sweeper = create_product(db), connect(autocommit=False)
    coming = order(db, product) + 1
    db.execute("select flashsale.change_settings(p_inbox_keep => '1 second')")
    assert pay(db, coming, "failed", key="stored") == "stored"
    waited = "select wait_ends_at <= clock_timestamp() from flashsale.payments"
    wait_until(lambda: one(db, waited), "the webhook has waited too long")
    expire_due(sweeper)
    assert order(db, product) == coming
    sweeper.rollback()
    assert pay(db, coming, "cancelled", key="late") == "applied"
    assert purge(db)["orders"] == 0
    assert audit(db) == []
    assert expire_due(db) == 1
    assert purge(db)["orders"] == 1
    assert audit(db) == []


@pytest.mark.parametrize("level", [IsolationLevel.REPEATABLE_READ, IsolationLevel.SERIALIZABLE])
def test_a_purge_from_an_older_snapshot_than_a_payment_is_refused(db, connect, level):
    late = order(db, create_product(db))
    pay(db, late, "cancelled")
    purger = connect(autocommit=False)
    purger.isolation_level = level
    one(purger, "select 1 from flashsale.settings")
    assert pay(db, late, key="late") == "refund_due"
    with refused("SA009"):
        purge(purger)
    assert one(db, "select amount::text from flashsale.refunds_due") == "99.00"
    assert audit(db) == []
