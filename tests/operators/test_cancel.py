"""cancel_order(s), preview_cancel_sale and cancel_sale."""

import queue
import random
import threading
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal

import pytest

from tests.support.sql_calls import (
    LOCKED,
    apply_payment,
    audit,
    available,
    create_order,
    create_overdue_order,
    create_product,
    expire_due,
    get_hold,
    get_order,
    order_units,
    outcome,
    place_hold,
    place_short_hold,
    refused,
    row,
    rows,
    value,
    wait_until_past,
)
from tests.support.waiting import wait_until, wait_until_blocked

CANCEL = "select * from flashsale.cancel_order(%s, %s)"
PREVIEW = "select * from flashsale.preview_cancel_sale(%s)"
CANCEL_SALE = "select * from flashsale.cancel_sale(%s, %s)"


def cancel(conn, order, restock=True):
    return tuple(row(conn, CANCEL, order.order_id, restock))


def due(conn):
    return [
        tuple(each)
        for each in rows(conn, "select idempotency_key, amount::text, reason from flashsale.refunds_due")
    ]


def total(conn, product):
    return value(conn, "select total_stock from flashsale.get_product(%s)", product)


@pytest.mark.parametrize("restock", [True, False])
@pytest.mark.parametrize("paid", [True, False])
def test_an_order_is_cancelled_for_the_shop(db, paid, restock):
    product = create_product(db, stock=5)
    order = order_units(db, product, 2)
    if paid:
        apply_payment(db, "p", order.order_id)
    for _ in range(2):
        assert cancel(db, order, restock) == (order.order_id, "cancelled", "shop_cancelled")
    assert (total(db, product), available(db, product)) == ((5, 5) if restock else (3, 3))
    assert due(db) == ([("p", "198.00", "order_cancelled")] if paid else [])
    assert audit(db) == []
    later = apply_payment(db, "later", order.order_id)
    assert (later.status, later.result) == ("cancelled", "refund_due")
    assert audit(db) == []


@pytest.mark.parametrize("swept", [True, False])
@pytest.mark.parametrize("restock", [True, False])
def test_an_overdue_order_is_not_revived_once_the_shop_has_cancelled_it(db, swept, restock):
    product = create_product(db, stock=5)
    order = create_overdue_order(db, product, 2)
    if swept:
        expire_due(db)
    assert cancel(db, order, restock)[1:] == ("cancelled", "shop_cancelled")
    assert (total(db, product), available(db, product)) == (5, 5)
    assert apply_payment(db, "p", order.order_id).result == "refund_due"
    expire_due(db)
    assert audit(db) == []


def test_a_test_product_that_is_forgotten_meanwhile_is_unknown(db, connect):
    product = create_product(db, is_test=True)
    forgetter, canceller = connect(), connect()
    forgetter.execute("begin")
    forgetter.execute("select * from flashsale.forget_tests()")
    with ThreadPoolExecutor(1) as other:
        answer = other.submit(outcome, row, canceller, CANCEL_SALE, product, 0)
        wait_until_blocked(canceller, watcher=db)
        forgetter.execute("commit")
        assert answer.result(30) == "SA001"


def test_an_order_that_was_cancelled_for_another_reason_stays_as_it_is(db):
    product = create_product(db, stock=5)
    order = order_units(db, product, 2)
    apply_payment(db, "c", order.order_id, "cancelled")
    assert cancel(db, order)[1:] == ("cancelled", "payment_cancelled")
    with refused("SA007"):
        row(db, CANCEL, 10**9, True)
    with refused("SA009"):
        row(db, CANCEL, None, True)


def test_orders_of_several_products_in_one_call(db):
    first, second = create_product(db, stock=5), create_product(db, stock=5)
    orders = [order_units(db, product, 1) for product in (first, second, first)]
    apply_payment(db, "p", orders[1].order_id)
    outcomes = rows(
        db,
        "select * from flashsale.cancel_orders(array[1, 2, 3, 4, 5], %s, '{true, false, null, true, true}')",
        [orders[0].order_id, orders[1].order_id, orders[2].order_id, orders[0].order_id, 10**9],
    )
    assert [(each.request_no, each.sqlstate, each.status) for each in outcomes] == [
        (1, None, "cancelled"), (2, None, "cancelled"), (3, None, "cancelled"), (4, None, "cancelled"),
        (5, "SA007", None),
    ]  # fmt: skip
    assert (available(db, first), available(db, second), total(db, second)) == (5, 4, 4)
    assert audit(db) == []


def a_sale(db, product):
    """One each: an active hold, an expired one, a pending, overdue, paid and failed order."""
    held = place_hold(db, product, 1)
    short = place_short_hold(db, product, 1)
    pending, paid, failed = (order_units(db, product, 1) for _ in range(3))
    overdue = create_overdue_order(db, product, 1)
    apply_payment(db, "pays", paid.order_id)
    apply_payment(db, "fails", failed.order_id, "failed")
    wait_until_past(db, short.expires_at)
    return held, short, pending, paid, failed, overdue


def test_a_sale_is_cancelled_as_it_was_previewed(db):
    product, other = create_product(db, stock=10), create_product(db, stock=10)
    elsewhere = order_units(db, other, 1)
    held, _, pending, paid, failed, overdue = a_sale(db, product)
    preview = row(db, PREVIEW, product)
    assert tuple(preview) == (1, 1, 1, Decimal("99.00"), "USD")
    with refused("SA022"):
        row(db, CANCEL_SALE, product, Decimal("98.00"))
    assert audit(db) == []
    assert row(db, CANCEL_SALE, product, preview.refund_total) == preview
    assert get_hold(db, held.hold_id).status == "released"
    assert {get_order(db, each.order_id).cancel_reason for each in (pending, paid, failed, overdue)} == {
        "sale_cancelled"
    }
    assert due(db) == [("pays", "99.00", "order_cancelled")]
    assert available(db, product) == 10
    with refused("SA015"):
        place_hold(db, product, 1)
    for order in (pending, failed, overdue):
        assert apply_payment(db, f"late {order.order_id}", order.order_id).result == "refund_due"
    assert get_order(db, elsewhere.order_id).status == "pending_payment"
    expire_due(db)
    assert audit(db) == []
    # Again, whatever the total.
    assert tuple(row(db, CANCEL_SALE, product, Decimal("99.00"))) == (0, 0, 0, 0, "USD")


def test_a_sale_that_does_not_exist_or_an_old_snapshot_is_refused(db):
    with refused("SA001"):
        row(db, PREVIEW, 10**9)
    with refused("SA001"):
        row(db, CANCEL_SALE, 10**9, 0)
    with refused("SA009"):
        row(db, CANCEL_SALE, create_product(db), None)
    with db.transaction(), refused("SA009"):
        db.execute("set transaction isolation level serializable")
        row(db, CANCEL_SALE, 1, 0)


def test_an_order_that_came_meanwhile_is_not_waited_for(db, connect):
    """The order is locked by a payment, which waits for the product, which the cancellation has locked."""
    product = create_product(db, stock=5)
    seller, payer, canceller = connect(), connect(), connect()
    # The cancellation stops where it has locked the product.
    db.execute("alter function flashsale_data.lock_stock rename to lock_stock_at_once")
    db.execute(
        "create function flashsale_data.lock_stock(p_product_ids bigint[], p_wait boolean default true,"
        " out ctids tid[], out available int[], out effective_nows timestamptz[])"
        " language plpgsql as $$ begin select l.* into ctids, available, effective_nows"
        " from flashsale_data.lock_stock_at_once(p_product_ids, p_wait) l;"
        " if current_setting('test.stops', true) = 'yes' then"
        " perform pg_advisory_xact_lock_shared(1); end if; end $$"
    )
    canceller.execute("set test.stops = 'yes'")
    seller.execute("begin")
    hold = place_hold(seller, product, 1)  # locks the product
    late = create_order(seller, hold.hold_id)
    with ThreadPoolExecutor(2) as callers:
        cancelled = callers.submit(outcome, row, canceller, CANCEL_SALE, product, 0)
        wait_until_blocked(canceller, watcher=db)
        db.execute("select pg_advisory_lock(1)")
        seller.execute("commit")
        wait_until(
            lambda: value(
                db, "select exists (select from pg_locks where locktype = 'advisory' and not granted)"
            ),
            "the cancellation has locked the product",
        )
        paid = callers.submit(outcome, apply_payment, payer, "p", late.order_id)
        wait_until_blocked(payer, watcher=db)
        db.execute("select pg_advisory_unlock(1)")
        assert cancelled.result(30) == "SA022"  # after the payment
        assert paid.result(30).status == "paid"
    assert audit(db) == []


def test_buyers_and_webhooks_meet_a_sale_that_is_cancelled(db, connect):
    """Whatever they do meanwhile, nothing is oversold and the money adds up at every instant."""
    product = create_product(db, stock=300)
    orders = [order_units(db, product, 1) for _ in range(60)]
    for order in orders[:20]:
        apply_payment(db, f"paid {order.order_id}", order.order_id)

    def pay(conn, part):
        for order in part:
            apply_payment(conn, f"p {order.order_id}", order.order_id)

    def buy(conn):
        for _ in range(30):
            try:
                create_order(conn, place_hold(conn, product, 1).hold_id)
            except Exception as error:
                assert getattr(error, "sqlstate", None) in ("SA015", "SA005"), error

    def look(conn):
        for _ in range(20):
            assert audit(conn) == []

    def cancel_it(conn):
        for _ in range(50):
            preview = row(conn, PREVIEW, product)
            try:
                return row(conn, CANCEL_SALE, product, preview.refund_total)
            except Exception as error:
                assert getattr(error, "sqlstate", None) in ("SA022", "55P03"), error
        raise AssertionError("never cancelled")

    with ThreadPoolExecutor(6) as callers:
        jobs = [callers.submit(pay, connect(), orders[i::2]) for i in range(2)]
        jobs += [callers.submit(buy, connect()) for _ in range(2)]
        jobs += [callers.submit(look, connect()), callers.submit(cancel_it, connect())]
        for job in jobs:
            job.result()
    assert {get_order(db, order.order_id).cancel_reason for order in orders} == {"sale_cancelled"}
    assert available(db, product) == 300
    assert audit(db) == []


def thousand_webhooks(paid, unpaid):
    """Four for each order: (key, order, status). Those of paid orders do not change what a preview shows."""
    webhooks = []
    for order in paid:
        webhooks += [(f"pays {order.order_id}", order.order_id, "success")]
        webhooks += [(f"fails {order.order_id}", order.order_id, "failed")]
    for i, order in enumerate(unpaid):
        webhooks += [(f"pays {order.order_id}", order.order_id, "success")] * 2
        # A third of them may fail before they are paid.
        webhooks += [(f"no {order.order_id}", order.order_id, "failed" if i % 3 == 0 else "declined")]
    for order in (*paid, *unpaid):
        webhooks += [(f"pays again {order.order_id}", order.order_id, "success")]
    for order in paid:
        webhooks += [(f"declined {order.order_id}", order.order_id, "declined")]
    assert len(webhooks) == 1000
    random.Random(16).shuffle(webhooks)
    return webhooks


def test_a_thousand_webhooks_during_a_cancelled_sale(db, connect):
    """Whenever audit() looks, captured = kept + due + refunded, while a worker makes the refunds."""
    product = create_product(db, stock=250)
    orders = [order_units(db, product, 1) for _ in range(250)]
    for order in orders[:100]:
        apply_payment(db, f"pays {order.order_id}", order.order_id)
    webhooks = thousand_webhooks(orders[:100], orders[100:])
    to_come = queue.SimpleQueue()
    for webhook in webhooks[:800]:
        to_come.put(webhook)
    served = threading.Semaphore(0)
    all_served, all_refunded = threading.Event(), threading.Event()

    def deliver(conn):
        while not to_come.empty():
            try:
                webhook = to_come.get_nowait()
            except queue.Empty:
                return
            apply_payment(conn, *webhook)
            served.release()

    def cancel_it(conn):
        for _ in range(300):
            assert served.acquire(timeout=60)
        while True:
            preview = row(conn, PREVIEW, product)
            answer = outcome(row, conn, CANCEL_SALE, product, preview.refund_total)
            if answer not in ("SA022", LOCKED):
                break
        assert answer == preview
        for webhook in webhooks[800:]:
            to_come.put(webhook)
        return preview

    def refund(conn):
        """Every fifth attempt fails."""
        attempts = 0
        while True:
            last = all_served.is_set()
            begun = rows(conn, "select * from flashsale.begin_refunds(20)")
            for each in begun:
                attempts += 1
                status = "done" if attempts % 5 else "failed"
                record = "select flashsale.record_refund(%s, %s, %s, %s)"
                conn.execute(record, (each.refund_key, each.payment_key, each.amount, status))
            if last and not begun:
                return attempts
            all_served.wait(0 if begun else 0.02)

    def look(conn):
        looks = 0
        while not all_refunded.is_set():
            assert audit(conn) == []
            looks += 1
        return looks

    with ThreadPoolExecutor(7) as callers:
        looking = callers.submit(look, connect())
        refunding = callers.submit(refund, connect())
        cancelling = callers.submit(cancel_it, connect())
        conns = [connect() for _ in range(4)]
        try:
            for job in [callers.submit(deliver, conn) for conn in conns]:
                job.result(120)
            preview = cancelling.result(120)
            for job in [callers.submit(deliver, conn) for conn in conns]:
                job.result(120)
        finally:
            all_served.set()
            try:
                attempts = refunding.result(120)
            finally:
                all_refunded.set()
        assert looking.result(120) > 1
    assert preview.paid >= 100
    assert {get_order(db, order.order_id).cancel_reason for order in orders} == {"sale_cancelled"}
    assert available(db, product) == 250
    # Each order was paid twice, and all of it is back.
    assert due(db) == []
    money = "select count(*), sum(refunded) from flashsale_data.payments where status = 'success'"
    assert tuple(row(db, money)) == (500, Decimal("49500.00"))
    assert attempts > 500
    assert audit(db) == []
