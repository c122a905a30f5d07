"""The very instant at which a hold lapses or an order falls due: its time is up then, not a moment later.

No test can call at a given microsecond. But where a product's lapsed_through is later than the clock, because
that has been set back, lapsed_through is the time by which holds are judged (lock_stock).
"""

from datetime import timedelta

import pytest

from tests.support.sql_calls import (
    apply_payment,
    available,
    create_order,
    get_hold,
    get_order,
    order_units,
    place_hold,
    place_lapsed_hold,
    refused,
    release_hold,
    value,
)

MOMENT = timedelta(microseconds=1)


def make_it(conn, product, instant):
    """For this product it is `instant` now; what has lapsed until then has been given back."""
    conn.execute(
        """
        update flashsale_data.stock s
        set version = s.version + 1, lapsed_through = %(instant)s,
            held = s.held - due.held, awaiting = s.awaiting - due.awaiting
        from (
          select coalesce(sum(l.held), 0) as held, coalesce(sum(l.awaiting), 0) as awaiting
          from flashsale_data.lapses l
          join flashsale_data.stock s using (product_id)
          where l.product_id = %(product)s
            and l.lapses_at > s.lapsed_through and l.lapses_at <= %(instant)s) due
        where s.product_id = %(product)s
        """,
        {"product": product, "instant": instant},
    )


def test_a_hold_has_lapsed_at_its_instant(db, product):
    hold = place_hold(db, product, 3)
    make_it(db, product, hold.expires_at - MOMENT)
    assert (get_hold(db, hold.hold_id).status, available(db, product)) == ("active", 7)
    make_it(db, product, hold.expires_at)
    assert (get_hold(db, hold.hold_id).status, available(db, product)) == ("expired", 10)
    for act in (release_hold, create_order):
        with refused("SA004"):
            act(db, hold.hold_id)


@pytest.mark.parametrize(("early", "answer"), [(MOMENT, "pending_payment"), (0 * MOMENT, "SA004")])
def test_a_hold_has_lapsed_at_its_instant_for_an_order_that_has_waited(
    db, product, first, second, blocked, early, answer
):
    hold = place_hold(db, product)
    place_hold(first, product)
    order = blocked(create_order, second, hold.hold_id)
    make_it(first, product, hold.expires_at - early)
    first.commit()
    assert getattr(order.result(), "status", order.result()) == answer


def test_an_order_is_overdue_at_its_instant(db, product):
    order = order_units(db, product, 3)
    make_it(db, product, order.payment_due_at - MOMENT)
    assert (get_order(db, order.order_id).status, available(db, product)) == ("pending_payment", 7)
    make_it(db, product, order.payment_due_at)
    assert get_order(db, order.order_id).cancel_reason == "payment_overdue"
    assert available(db, product) == 10


@pytest.mark.parametrize(("early", "result"), [(MOMENT, "applied"), (0 * MOMENT, "refund_due")])
def test_a_payment_at_the_instant_is_too_late(db, product, early, result):
    order = order_units(db, product, 3)
    make_it(db, product, order.payment_due_at - early)
    place_hold(db, product, available(db, product))
    assert apply_payment(db, "p", order.order_id).result == result


def test_what_lapsed_at_the_instant_is_not_given_back_twice(db, product):
    lapsed = place_lapsed_hold(db, product, 4)
    make_it(db, product, lapsed.expires_at)
    assert place_hold(db, product, 10).status == "active"
    assert available(db, product) == 0


def test_all_that_lapses_at_one_instant_is_counted(db, product):
    make_it(db, product, value(db, "select clock_timestamp() + interval '1 hour'"))
    first, second = place_hold(db, product, 2), place_hold(db, product, 3)
    assert first.expires_at == second.expires_at
    make_it(db, product, first.expires_at)
    assert available(db, product) == 10
