"""Many callers at the same time: the functions under real locks, each interleaving made to happen."""

import random
import time

import pytest

from tests.support.sql_calls import (
    TITLES,
    adjust_stock,
    apply_payment,
    audit,
    available,
    change_settings,
    create_order,
    create_product,
    expire_due,
    next_order_id,
    order_units,
    outcome,
    place_hold,
    place_holds,
    place_lapsed_hold,
    place_short_hold,
    release_hold,
    rows,
    value,
    wait_until_past,
)

pytestmark = pytest.mark.slow


# --- the drop ---


def test_of_40_buyers_at_once_exactly_as_many_as_there_are_units_are_served(db, at_once):
    product = create_product(db, stock=25)
    holds = at_once(place_hold, [(product,)] * 40)
    assert holds.count("SA002") == 15
    held = [hold for hold in holds if hold != "SA002"]
    assert len({hold.hold_id for hold in held}) == 25
    assert available(db, product) == 0

    orders = at_once(create_order, [(hold.hold_id,) for hold in held])
    assert len({order.order_id for order in orders}) == 25
    payments = at_once(apply_payment, [(f"p{order.order_id}", order.order_id) for order in orders])
    assert {payment.result for payment in payments} == {"applied"}
    assert value(db, "select paid from flashsale.stock") == 25


def test_buyers_of_several_units_leave_none_that_another_could_take(db, at_once):
    product = create_product(db, stock=20)
    quantities = [3, 2, 1] * 10
    holds = at_once(place_hold, [(product, qty) for qty in quantities])
    assert sum(hold.qty for hold in holds if hold != "SA002") == 20


def test_batches_and_single_buyers_share_the_stock(db, at_once):
    product = create_product(db, stock=50)
    batches = at_once(place_holds, [[(product, 1)] * size for size in (1, 20, 1, 20, 1, 20, 1)])
    assert sum(placed.sqlstate is None for batch in batches for placed in batch) == 50


# --- one key, one effect ---


def test_the_same_hold_request_at_once_places_one_hold(db, product, at_once):
    holds = at_once(place_hold, [(product, 2, "k")] * 8)
    assert len({hold[:5] for hold in holds}) == 1
    assert [hold.replayed for hold in holds].count(False) == 1
    assert available(db, product) == 8


@pytest.mark.parametrize(("end", "replayed"), [("commit", True), ("rollback", False)])
def test_a_request_waits_for_the_one_that_came_with_its_key(
    db, product, first, second, blocked, end, replayed
):
    hold = place_hold(first, product, 2, "k")
    again = blocked(place_hold, second, product, 2, "k")
    getattr(first, end)()
    assert again.result().replayed is replayed
    assert (again.result().hold_id == hold.hold_id) is replayed
    assert available(db, product) == 8


@pytest.mark.parametrize(("end", "answer"), [("commit", "SA008"), ("rollback", "active")])
def test_a_request_waits_for_the_one_that_came_with_its_key_for_another_product(
    db, product, first, second, blocked, end, answer
):
    """They have no other lock in common."""
    place_hold(first, product, 1, "k")
    hold = blocked(place_hold, second, create_product(db), 1, "k")
    getattr(first, end)()
    assert getattr(hold.result(), "status", hold.result()) == answer


def test_one_key_with_different_bodies_at_once_serves_one_of_them(db, product, at_once):
    holds = at_once(place_hold, [(product, qty, "k") for qty in range(1, 9)])
    assert holds.count("SA008") == 7


def test_the_same_order_request_at_once_creates_one_order(db, product, at_once):
    hold = place_hold(db, product)
    orders = at_once(create_order, [(hold.hold_id, "k")] * 8)
    assert len({order[:5] for order in orders}) == 1
    assert [order.replayed for order in orders].count(False) == 1


def test_one_hold_ordered_at_once_by_many_becomes_one_order(db, product, at_once):
    hold = place_hold(db, product)
    orders = at_once(create_order, [(hold.hold_id, f"k{i}") for i in range(4)] + [(hold.hold_id, None)] * 4)
    assert orders.count("SA006") == 7


@pytest.mark.parametrize("known", [True, False], ids=["order", "no order yet"])
def test_the_same_webhook_five_times_at_once_has_one_effect_and_one_answer(db, product, at_once, known):
    order_id = order_units(db, product).order_id if known else next_order_id(db)
    answers = at_once(apply_payment, [("p", order_id)] * 5)
    assert len({answer[:3] for answer in answers}) == 1
    assert [answer.replayed for answer in answers].count(False) == 1
    assert answers[0].result == ("applied" if known else "stored")
    assert value(db, "select count(*) from flashsale_data.events where payment_key = 'p'") == 1


def test_different_payments_at_once_pay_an_order_once(db, product, at_once):
    order = order_units(db, product)
    results = [
        answer.result for answer in at_once(apply_payment, [(f"p{i}", order.order_id) for i in range(6)])
    ]
    assert sorted(results) == ["applied"] + ["refund_due"] * 5


# --- waiting past the time ---


def test_a_hold_that_lapses_while_its_order_waits_for_the_product_has_expired(
    db, product, first, second, blocked
):
    hold = place_short_hold(db, product, 1, "1 second")
    place_hold(first, product)
    order = blocked(create_order, second, hold.hold_id)
    wait_until_past(db, hold.expires_at)
    first.commit()
    assert order.result() == "SA004"
    assert available(db, product) == 9


def test_a_hold_that_lapses_while_its_order_waits_for_the_hold_has_expired(
    db, product, first, second, blocked
):
    hold = place_short_hold(db, product, 1, "1 second")
    release_hold(first, hold.hold_id)
    order = blocked(create_order, second, hold.hold_id)
    wait_until_past(db, hold.expires_at)
    first.rollback()
    assert order.result() == "SA004"


def test_a_hold_that_lapses_while_its_release_waits_has_expired(db, product, first, second, blocked):
    hold = place_short_hold(db, product, 1, "1 second")
    place_hold(first, product)
    release = blocked(release_hold, second, hold.hold_id)
    wait_until_past(db, hold.expires_at)
    first.commit()
    assert release.result() == "SA004"
    assert available(db, product) == 9


def test_units_that_lapse_while_a_buyer_waits_are_the_buyers(db, product, first, second, blocked):
    lapsing = place_short_hold(db, product, 9, "1 second")
    place_hold(first, product)
    hold = blocked(place_hold, second, product, 9)
    wait_until_past(db, lapsing.expires_at)
    first.commit()
    assert hold.result().status == "active"
    assert available(db, product) == 0


def test_the_two_minutes_of_a_hold_begin_when_it_is_placed_not_when_its_buyer_began_to_wait(
    db, product, first, second, blocked
):
    place_hold(first, product)
    hold = blocked(place_hold, second, product)
    waited_until = value(db, "select clock_timestamp() + interval '100 ms'")
    wait_until_past(db, waited_until)
    first.commit()
    assert (hold.result().expires_at - waited_until).total_seconds() >= 120


def test_an_order_that_falls_due_while_its_payment_waits_takes_its_units_again(
    db, product, first, second, blocked
):
    hold = place_hold(db, product, 5)
    change_settings(db, payment_window="600 ms")
    order = create_order(db, hold.hold_id)
    place_hold(first, product)
    payment = blocked(apply_payment, second, "p", order.order_id)
    wait_until_past(db, order.payment_due_at)
    first.commit()
    assert payment.result().result == "applied"
    events = (
        "select kind, available_delta from flashsale_data.events where order_id is not null order by event_id"
    )
    assert rows(db, events) == [("order_created", 0), ("order_cancelled", 5), ("order_paid", -5)]
    assert available(db, product) == 4


# --- pairs ---


@pytest.mark.parametrize(("end", "status"), [("commit", "SA005"), ("rollback", "pending_payment")])
def test_an_order_waits_for_the_release_of_its_hold(db, product, first, second, blocked, end, status):
    hold = place_hold(db, product)
    release_hold(first, hold.hold_id)
    order = blocked(create_order, second, hold.hold_id)
    getattr(first, end)()
    assert getattr(order.result(), "status", order.result()) == status


@pytest.mark.parametrize(("end", "status"), [("commit", "SA006"), ("rollback", "released")])
def test_a_release_waits_for_the_order_of_its_hold(db, product, first, second, blocked, end, status):
    hold = place_hold(db, product)
    create_order(first, hold.hold_id)
    release = blocked(release_hold, second, hold.hold_id)
    getattr(first, end)()
    assert getattr(release.result(), "status", release.result()) == status


@pytest.mark.parametrize(("end", "first_come"), [("commit", "SA002"), ("rollback", "active")])
def test_a_buyer_waits_for_the_buyer_of_the_last_units(db, product, first, second, blocked, end, first_come):
    place_hold(first, product, 10)
    hold = blocked(place_hold, second, product)
    getattr(first, end)()
    assert getattr(hold.result(), "status", hold.result()) == first_come


def test_a_buyer_who_finds_a_product_sold_out_does_not_wait(db, product, first, second):
    place_hold(db, product, 10)
    adjust_stock(first, product, 5)
    second.execute("set lock_timeout = '1ms'")
    assert outcome(place_hold, second, product) == "SA002"
    first.commit()
    assert place_hold(second, product, 5).status == "active"


@pytest.mark.parametrize(("delta", "answer"), [(-8, "SA010"), (-7, (3, 0)), (5, (15, 12))])
def test_adjust_stock_waits_for_the_buyer_it_races(db, product, first, second, blocked, delta, answer):
    place_hold(first, product, 3)
    adjusted = blocked(adjust_stock, second, product, delta)
    first.commit()
    found = adjusted.result()
    assert (found if isinstance(found, str) else found[1:]) == answer
    assert value(db, "select total_stock - held from flashsale.stock") == available(db, product)


@pytest.mark.parametrize(("delta", "sqlstate"), [(-8, "SA002"), (1, None)])
def test_a_buyer_waits_for_adjust_stock(db, product, first, second, blocked, delta, sqlstate):
    adjust_stock(first, product, delta)
    hold = blocked(place_hold, second, product, 3)
    first.commit()
    assert (hold.result() if isinstance(hold.result(), str) else None) == sqlstate


def test_adjust_stock_counts_units_that_have_just_lapsed(db, product):
    place_lapsed_hold(db, product, 10)
    assert adjust_stock(db, product, -4) == (product, 6, 6)


# --- everything at once ---


DEEDS = ["hold", "hold", "order", "order", "release", "pay", "pay", "pay unknown", "sweep", "adjust"]


def test_the_books_balance_at_every_moment_of_a_busy_sale(db, connect, meanwhile):
    products = [create_product(db, stock=30) for _ in range(3)]
    change_settings(db, hold_time="100 ms", payment_window="100 ms", inbox_limit=20)
    holds, orders = [1], [1]
    until = time.monotonic() + 4

    def act(conn, deed, dice):
        key = dice.choice([None, f"k{dice.randrange(300)}"])
        webhook = f"p{dice.randrange(5000)}"
        match deed:
            case "hold":
                wanted = [(dice.choice(products), dice.randint(1, 3)) for _ in range(dice.randint(1, 6))]
                placed = place_holds(conn, (*wanted[0], key), *wanted[1:])
                holds.extend(hold.hold_id for hold in placed if hold.hold_id)
            case "order":
                orders.append(create_order(conn, dice.choice(holds[-40:]), key).order_id)
            case "release":
                release_hold(conn, dice.choice(holds[-40:]))
            case "pay":
                word = dice.choice(["success", "failed", "cancelled"])
                apply_payment(conn, webhook, dice.choice(orders[-30:]), word)
            case "pay unknown":
                apply_payment(conn, webhook, max(orders) + dice.randint(1, 5))
            case "sweep":
                expire_due(conn, 10)
            case "adjust":
                adjust_stock(conn, dice.choice(products), dice.choice([-2, -1, 1, 2]))

    def act_until_closing_time(conn, seed):
        dice = random.Random(seed)
        refusals = set()
        while time.monotonic() < until:
            refusals.add(outcome(act, conn, dice.choice(DEEDS), dice))
        return refusals

    actors = [meanwhile(act_until_closing_time, connect(), seed) for seed in range(8)]
    while not all(actor.done() for actor in actors):
        assert audit(db) == []
    refusals = set().union(*(actor.result() for actor in actors)) - {None}
    assert refusals <= TITLES.keys()
    assert value(db, "select count(*) from flashsale_data.orders where status = 'paid'") > 0
    assert all(available(db, product) >= 0 for product in products)
