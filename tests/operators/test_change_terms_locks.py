"""change_terms() and pause_sale() beside buyers and other operators."""

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import psycopg
import pytest

from tests.operators.terms import clock
from tests.support.sql_calls import (
    audit,
    available,
    change_terms,
    create_order,
    create_product,
    outcome,
    pause_sale,
    place_hold,
    place_holds,
    sqlstates,
    value,
    wait_until_past,
)
from tests.support.waiting import wait_until_blocked


@pytest.mark.slow
@pytest.mark.parametrize("change", [
    lambda conn, product: pause_sale(conn, product),
    lambda conn, product: change_terms(conn, product, ends_at="2000-01-01 00:00Z"),
    lambda conn, product: change_terms(conn, product, max_per_hold=1),
])  # fmt: skip
def test_once_a_change_has_committed_no_hold_of_the_old_terms_is_placed(db, connect, change):
    """A hold that waits for the change is judged by what it has changed."""
    product = create_product(db)
    operator, buyer = connect(autocommit=False), connect()
    change(operator, product)
    with ThreadPoolExecutor(1) as pool:
        hold = pool.submit(outcome, place_hold, buyer, product, 2)
        wait_until_blocked(buyer, watcher=db)
        operator.commit()
        assert hold.result() in ("SA013", "SA014", "SA017")
    assert available(db, product) == 10


@pytest.mark.slow
def test_a_change_waits_for_the_holds_before_it(db, connect):
    product = create_product(db)
    buyer, operator = connect(autocommit=False), connect()
    place_hold(buyer, product)
    with ThreadPoolExecutor(1) as pool:
        change = pool.submit(outcome, pause_sale, operator, product)
        wait_until_blocked(operator, watcher=db)
        buyer.commit()
        assert change.result()[0].sale_status == "paused"
    assert available(db, product) == 9
    assert value(db, "select gated from flashsale_data.stock") is True


@pytest.mark.slow
def test_a_window_is_judged_after_the_lock(db, connect):
    """The sale ends while the buyer waits."""
    product = create_product(db, ends_at=clock(db) + timedelta(seconds=1))
    ahead, buyer = connect(autocommit=False), connect()
    place_hold(ahead, product)
    with ThreadPoolExecutor(1) as pool:
        hold = pool.submit(outcome, place_hold, buyer, product)
        wait_until_blocked(buyer, watcher=db)
        wait_until_past(db, value(db, "select ends_at from flashsale_data.products"))
        ahead.commit()
        assert hold.result() == "SA013"


@pytest.mark.slow
def test_changes_of_several_products_do_not_deadlock(db, connect):
    """Each in another order of the array; buyers of all of them meanwhile."""
    products = [create_product(db, stock=10_000) for _ in range(4)]
    operators = [connect() for _ in range(4)]
    buyers = [connect() for _ in range(3)]

    def change(n):
        for round_ in range(15):
            turned = products[n:] + products[:n]
            change_terms(operators[n], *turned, max_per_hold=round_ + 2)

    def buy(n):
        return [
            sqlstates(place_holds(buyers[n], *[(p, 1) for p in products[n:] + products[:n]]))
            for _ in range(40)
        ]

    with ThreadPoolExecutor(8) as pool:
        changes, purchases = pool.map(change, range(4)), pool.map(buy, range(3))
        assert list(changes) == [None] * 4
        assert {state for bought in purchases for states in bought for state in states} <= {None, "55P03"}
    assert audit(db) == []


@pytest.mark.slow
@pytest.mark.parametrize("level", ["repeatable read", "serializable"])
def test_an_old_snapshot_does_not_judge_by_old_terms(db, connect, level):
    product = create_product(db)
    conn = connect()
    conn.execute(f"begin isolation level {level}; select 1")
    conn.execute("select count(*) from flashsale_data.products")
    change_terms(db, product, max_per_hold=1)
    with pytest.raises(psycopg.errors.SerializationFailure):
        place_hold(conn, product, 5)
    conn.execute("rollback")


@pytest.mark.slow
@pytest.mark.parametrize("level", ["repeatable read", "serializable"])
def test_an_order_has_no_payment_window_of_an_old_snapshot(db, connect, level):
    product = create_product(db)
    hold = place_hold(db, product)
    conn = connect()
    conn.execute(f"begin isolation level {level}")
    conn.execute("select count(*) from flashsale_data.products")
    change_terms(db, product, payment_window="1 hour")
    with pytest.raises(psycopg.errors.SerializationFailure):
        create_order(conn, hold.hold_id)
    conn.execute("rollback")
