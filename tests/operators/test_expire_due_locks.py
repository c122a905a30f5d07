"""expire_due() beside transactions that hold locks, and beside other sweepers and buyers."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.operators.expiries import marks, statuses
from tests.support.sale_steps import (
    audit,
    available,
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
    wait_until_lapsed,
)
from tests.support.sql_calls import age_inbox

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("books_balance")]


def test_a_locked_hold_is_skipped_until_the_next_call(db, connect):
    product = create_product(db)
    make_short(db)
    stuck, free = place_hold(db, product), place_hold(db, product)
    wait_until_lapsed(db)
    other = connect(autocommit=False)
    other.execute("select from flashsale_data.holds where hold_id = %s for update", (stuck,))
    db.execute("set lock_timeout = '1ms'")
    assert expire_due(db) == 1
    assert (hold_status(db, stuck), hold_status(db, free)) == ("active", "expired")
    other.rollback()
    assert expire_due(db) == 1
    assert hold_status(db, stuck) == "expired"


def test_a_locked_order_is_skipped_until_the_next_call(db, connect):
    product = create_product(db)
    make_short(db)
    stuck, free = order(db, product), order(db, product)
    wait_until_lapsed(db)
    other = connect(autocommit=False)
    other.execute("select from flashsale_data.orders where order_id = %s for update", (stuck,))
    db.execute("set lock_timeout = '1ms'")
    assert expire_due(db) == 1
    assert order_status(db, stuck) == ("pending_payment", None)
    assert order_status(db, free) == ("cancelled", "payment_overdue")
    other.rollback()
    assert expire_due(db) == 1


def test_a_locked_product_delays_no_other(db, connect):
    busy, idle = create_product(db), create_product(db)
    make_short(db)
    stuck, free = place_hold(db, busy), place_hold(db, idle)
    wait_until_lapsed(db)
    seller = connect(autocommit=False)
    seller.execute("select from flashsale_data.stock where product_id = %s for no key update", (busy,))
    db.execute("set lock_timeout = '1ms'")
    assert expire_due(db) == 1
    assert (hold_status(db, stuck), hold_status(db, free)) == ("active", "expired")
    seller.rollback()
    assert expire_due(db) == 1


def test_a_locked_product_does_not_use_up_the_limit(db, connect):
    """The locked product has more lapsed units than a call records, and older ones."""
    locked, other = create_product(db, stock=50), create_product(db)
    make_short(db)
    place_many(db, locked, 20)
    hold = place_hold(db, other)
    wait_until_lapsed(db)
    locker = connect(autocommit=False)
    locker.execute("select from flashsale_data.stock where product_id = %s for update", (locked,))
    assert expire_due(db, 5) == 1
    assert hold_status(db, hold) == "expired"
    locker.rollback()
    assert [expire_due(db, 5) for _ in range(5)] == [5, 5, 5, 5, 0]


def test_locked_holds_do_not_use_up_the_limit(db, connect):
    """Their units have been returned already, by a hold that was placed since."""
    product, other = create_product(db, stock=50), create_product(db)
    make_short(db)
    place_many(db, product, 20)
    hold = place_hold(db, other)
    wait_until_lapsed(db)
    db.execute("select flashsale.change_settings('1 hour')")
    place_hold(db, product)
    locker = connect(autocommit=False)
    locker.execute("select from flashsale_data.holds where product_id = %s for update", (product,))
    assert expire_due(db, 5) == 1
    assert hold_status(db, hold) == "expired"
    locker.rollback()
    assert [expire_due(db, 5) for _ in range(5)] == [5, 5, 5, 5, 0]


def test_two_sweeps_record_different_rows(db, connect):
    one_product, other_product = create_product(db), create_product(db)
    make_short(db)
    place_many(db, one_product, 3)
    place_many(db, other_product, 4)
    wait_until_lapsed(db)
    first, second = connect(autocommit=False), connect()
    second.execute("set lock_timeout = '1ms'")
    expire_due(db, 1)  # returns all lapsed units: otherwise the first would lock the products, too
    marked_first = expire_due(first, 1)
    marked_second = expire_due(second)
    first.commit()
    assert marked_first == 1
    assert marked_second > 0
    while expire_due(db):
        pass
    assert statuses(db) == {"expired": 7}
    assert marks(db) == [1] * 7


def test_concurrent_sweeps_record_each_row_once(db, connect):
    products = [create_product(db, stock=1000) for _ in range(4)]
    make_short(db)
    for product in products:
        place_many(db, product, 400)
    for product in products * 2:
        order(db, product, 5)
    wait_until_lapsed(db)
    sweepers = [connect() for _ in range(4)]

    def sweep(conn):
        total = 0
        while one(conn, "select exists (select from flashsale_data.lapses)"):
            total += expire_due(conn, 25)
        return total

    with ThreadPoolExecutor(len(sweepers)) as pool:
        totals = list(pool.map(sweep, sweepers))
    assert sum(totals) == 1608
    assert marks(db) == [1] * 1608


def test_concurrent_sweeps_and_sales_lose_no_unit(db, connect):
    product = create_product(db, stock=20)
    make_short(db)
    end = one(db, "select clock_timestamp() + interval '700 milliseconds'")

    def going_on(conn):
        return one(conn, "select clock_timestamp() < %s", end)

    def sell(conn):
        while going_on(conn):
            placed = conn.execute(
                "select hold_id from flashsale.place_holds(array[1, 2], array[%(p)s, %(p)s], array[1, 2],"
                " array[null, null]) where sqlstate is null",
                {"p": product},
            ).fetchall()
            for (hold,) in placed[:1]:
                conn.execute("select flashsale.create_orders(array[1], array[%s], array[null])", (hold,))

    def sweep(conn):
        while going_on(conn):
            expire_due(conn)

    with ThreadPoolExecutor(4) as pool:
        work = [pool.submit(sell, connect()), pool.submit(sell, connect())]
        work += [pool.submit(sweep, connect()), pool.submit(sweep, connect())]
        for done in work:
            done.result()
    assert audit(db) == []
    wait_until_lapsed(db)
    while expire_due(db):
        pass
    assert available(db, product) == 20
    assert audit(db) == []
    assert max(marks(db)) == 1


def test_a_sweep_does_not_wait_for_the_inbox_lock(db, connect):
    pay(db, 1001)
    age_inbox(db)
    other = connect(autocommit=False)
    other.execute("select from flashsale_data.inbox for no key update")
    db.execute("set lock_timeout = '1ms'")
    assert expire_due(db) == 0
    other.rollback()
    assert expire_due(db) == 1
