"""What a batch does about rows that another transaction has locked.

It never waits for one while it holds another: requests that need a locked row get 55P03 and the
others are served. If all are locked it waits for one. A call with one request waits, as long as lock_timeout
allows.
"""

import pytest

from tests.support.sql_calls import (
    LOCKED,
    adjust_stock,
    apply_payment,
    apply_payments,
    available,
    create_order,
    create_orders,
    create_product,
    get_hold,
    next_order_id,
    order_units,
    outcome,
    place_hold,
    place_holds,
    release_hold,
    release_holds,
    sqlstates,
    value,
)


@pytest.fixture
def impatient(connect):
    """A caller who must not have to wait."""
    conn = connect()
    conn.execute("set lock_timeout = '1ms'")
    return conn


def lock(conn, table, id):
    key = {"holds": "hold_id", "orders": "order_id", "stock": "product_id"}[table]
    conn.execute(f"select from flashsale_data.{table} where {key} = %s for update", (id,))


@pytest.fixture
def other(db):
    return create_product(db)


# --- a mixed batch is served at once, all but the locked ---


def test_holds_of_a_locked_product(first, impatient, product, other):
    place_hold(first, product)
    outcomes = place_holds(impatient, (product, 1), (other, 1), (product, 1, "k"), (12345, 1))
    assert sqlstates(outcomes) == [LOCKED, None, LOCKED, "SA001"]
    assert [outcome.hold_id is None for outcome in outcomes] == [True, False, True, True]
    first.rollback()
    assert place_holds(impatient, (product, 1, "k"), (product, 1))[0].replayed is False


def test_holds_with_a_locked_key(first, impatient, product, other):
    place_hold(first, product, 1, "k")
    outcomes = place_holds(impatient, (other, 1, "k"), (other, 1, "l"), (other, 2), (other, 1, "k"))
    assert sqlstates(outcomes) == [LOCKED, None, None, LOCKED]
    first.commit()
    assert sqlstates(place_holds(impatient, (other, 1, "k"), (product, 1, "k"))) == ["SA008", None]


def test_releases_of_a_locked_hold(db, first, impatient, product):
    locked, free = place_hold(db, product), place_hold(db, product)
    lock(first, "holds", locked.hold_id)
    outcomes = release_holds(impatient, locked.hold_id, free.hold_id, 5)
    assert sqlstates(outcomes) == [LOCKED, None, "SA003"]
    assert [get_hold(db, hold.hold_id).status for hold in (locked, free)] == ["active", "released"]


def test_releases_of_holds_of_a_locked_product(db, first, impatient, product, other):
    locked, free = place_hold(db, product), place_hold(db, other)
    place_hold(first, product)
    assert sqlstates(release_holds(impatient, locked.hold_id, free.hold_id)) == [LOCKED, None]
    assert [get_hold(db, hold.hold_id).status for hold in (locked, free)] == ["active", "released"]


def test_orders_of_a_locked_hold(db, first, impatient, product):
    locked, free, used = (place_hold(db, product) for _ in range(3))
    create_order(db, used.hold_id)
    lock(first, "holds", locked.hold_id)
    outcomes = create_orders(impatient, (locked.hold_id, "k"), (free.hold_id,), (used.hold_id,))
    assert sqlstates(outcomes) == [LOCKED, None, "SA006"]
    assert outcomes[0].order_id is None
    first.rollback()
    assert sqlstates(create_orders(impatient, (locked.hold_id, "k"))) == [None]


def test_orders_of_holds_of_a_locked_product(db, first, impatient, product, other):
    locked, free = place_hold(db, product), place_hold(db, other)
    place_hold(first, product)
    assert sqlstates(create_orders(impatient, (locked.hold_id,), (free.hold_id,))) == [LOCKED, None]
    assert get_hold(db, locked.hold_id).status == "active"


def test_orders_with_a_locked_key(db, first, impatient, product):
    held, free, other = (place_hold(db, create_product(db)) for _ in range(3))
    create_order(first, held.hold_id, "k")
    outcomes = create_orders(impatient, (free.hold_id, "k"), (free.hold_id, "l"), (other.hold_id,))
    assert sqlstates(outcomes) == [LOCKED, None, None]


def test_payments_of_a_locked_order(db, first, impatient, product):
    locked, free = order_units(db, product), order_units(db, product)
    lock(first, "orders", locked.order_id)
    outcomes = apply_payments(
        impatient, ("a", locked.order_id, "success"), ("b", free.order_id, "success"), ("c", 10**9, "success")
    )
    assert sqlstates(outcomes) == [LOCKED, None, None]
    assert [outcome.result for outcome in outcomes] == [None, "applied", "stored"]
    first.rollback()
    assert apply_payment(db, "a", locked.order_id).replayed is False


def test_payments_of_orders_of_a_locked_product(db, first, impatient, product, other):
    locked, free = order_units(db, product), order_units(db, other)
    place_hold(first, product)
    outcomes = apply_payments(impatient, ("a", locked.order_id, "success"), ("b", free.order_id, "failed"))
    assert sqlstates(outcomes) == [LOCKED, None]
    assert value(db, "select count(*) from flashsale.payments") == 1


def test_payments_of_an_order_that_is_being_created(db, first, impatient, product, other):
    free = order_units(db, other)
    born = create_order(first, place_hold(db, product).hold_id)
    outcomes = apply_payments(impatient, ("a", born.order_id, "success"), ("b", free.order_id, "success"))
    assert sqlstates(outcomes) == [LOCKED, None]
    first.commit()
    assert apply_payment(impatient, "a", born.order_id).result == "applied"


def test_payments_of_one_key_the_first_of_which_meets_a_locked_order(db, first, impatient, product):
    """Nothing is known of the key yet, so nothing is said of its other requests: above all not that the inbox
    is full."""
    coming = next_order_id(db)
    first.execute("select flashsale_data.lock_order_ids(array[%s::bigint], p_wait => true)", (coming,))
    outcomes = apply_payments(
        impatient, ("k", coming, "success"), ("k", coming + 1, "failed"), ("other", coming + 1, "success")
    )
    assert sqlstates(outcomes) == [LOCKED, LOCKED, None]


@pytest.mark.parametrize("known", [True, False], ids=["order", "no order yet"])
def test_payments_with_a_locked_key(db, first, impatient, product, known):
    order_id = order_units(db, product).order_id if known else 10**9
    first.execute("select flashsale_data.lock_keys('payment', array['k'])")
    outcomes = apply_payments(impatient, ("k", order_id, "success"), ("l", order_id, "success"))
    assert sqlstates(outcomes) == [LOCKED, None]


# --- nothing but locked rows: wait for one, hold none ---


def test_a_batch_for_one_locked_product_waits(first, connect, product, blocked):
    place_hold(first, product)
    batch = blocked(place_holds, connect(), (product, 9), (product, 1))
    first.commit()
    assert sqlstates(batch.result()) == [None, "SA002"]


def test_a_batch_of_locked_products_waits_for_one_and_holds_none(db, connect, impatient, blocked):
    products = [create_product(db) for _ in range(3)]
    holders = [connect(autocommit=False) for _ in products]
    for holder, product in zip(holders, products, strict=True):
        place_hold(holder, product)
    batch = blocked(place_holds, connect(), *[(product, 1) for product in reversed(products)])
    for holder in holders[1:]:
        holder.commit()
    for product in products[1:]:
        assert place_hold(impatient, product).status == "active"
    holders[0].commit()
    assert sqlstates(batch.result()) == [LOCKED, LOCKED, None]


def test_a_batch_of_locked_keys_waits_for_one_and_holds_none(db, connect, impatient, product, blocked):
    holders = [connect(autocommit=False) for _ in "ab"]
    for holder, key in zip(holders, "ab", strict=True):
        holder.execute("select flashsale_data.lock_keys('hold', array[%s])", (key,))
    batch = blocked(place_holds, connect(), (product, 1, "b"), (product, 1, "a"))
    holders[1].commit()
    assert place_hold(impatient, product, 1, "b").replayed is False
    holders[0].commit()
    assert sqlstates(batch.result()) == [LOCKED, None]


def test_a_batch_of_locked_holds_waits_for_one_and_holds_none(db, connect, impatient, blocked):
    products = [create_product(db) for _ in range(2)]
    holds = sorted((place_hold(db, product) for product in products), key=lambda hold: hold.hold_id)
    holders = [connect(autocommit=False) for _ in holds]
    for holder, hold in zip(holders, holds, strict=True):
        lock(holder, "holds", hold.hold_id)
    batch = blocked(create_orders, connect(), (holds[1].hold_id,), (holds[0].hold_id,))
    holders[1].commit()
    assert release_hold(impatient, holds[1].hold_id).status == "released"
    holders[0].commit()
    assert batch.result()[0].sqlstate in (LOCKED, "SA005")
    assert batch.result()[1].sqlstate is None


def test_a_batch_of_locked_orders_waits_for_one_and_holds_none(db, connect, impatient, product, blocked):
    orders = [order_units(db, product) for _ in range(2)]
    holders = [connect(autocommit=False) for _ in orders]
    for holder, order in zip(holders, orders, strict=True):
        lock(holder, "orders", order.order_id)
    batch = blocked(
        apply_payments, connect(), *[(f"p{o.order_id}", o.order_id, "success") for o in reversed(orders)]
    )
    holders[1].commit()
    assert apply_payment(impatient, "q", orders[1].order_id).result == "applied"
    holders[0].commit()
    assert sqlstates(batch.result()) == [LOCKED, None]


def test_a_batch_of_unknown_locked_orders_waits_for_one_and_then_sees_it(db, connect, product, blocked):
    holders = [connect(autocommit=False) for _ in range(2)]
    born = [create_order(holder, place_hold(db, create_product(db)).hold_id) for holder in holders]
    batch = blocked(apply_payments, connect(), *[(f"p{o.order_id}", o.order_id, "success") for o in born])
    holders[0].commit()
    outcomes = batch.result()
    assert sqlstates(outcomes) == [None, LOCKED]
    assert outcomes[0].result == "applied"
    holders[1].rollback()


# --- one request waits, as long as lock_timeout lets it ---


def test_a_call_of_one_gives_up_at_lock_timeout_and_has_done_nothing(db, first, impatient, product):
    hold, order = place_hold(db, product), order_units(db, product)
    before = (available(db, product), value(db, "select count(*) from flashsale_data.events"))
    place_hold(first, product)
    for call, *arguments in (
        (place_hold, product),
        (place_holds, (product, 1)),
        (release_hold, hold.hold_id),
        (create_order, hold.hold_id),
        (create_orders, (hold.hold_id,)),
        (apply_payment, "p", order.order_id),
        (apply_payments, ("p", order.order_id, "success")),
        (adjust_stock, product, 1),
    ):
        assert outcome(call, impatient, *arguments) == LOCKED
    first.rollback()
    assert (available(db, product), value(db, "select count(*) from flashsale_data.events")) == before


def test_lock_timeout_is_kept_for_keys_and_unknown_orders(first, impatient, product, db):
    place_hold(first, product, 1, "k")
    assert outcome(place_hold, impatient, create_product(db), 1, "k") == LOCKED
    first.rollback()
    apply_payment(first, "p", next_order_id(db))
    assert outcome(apply_payment, impatient, "q", next_order_id(db)) == LOCKED


# --- no deadlock ---


def test_an_order_locks_its_hold_before_its_product(db, first, connect, impatient, product, blocked):
    """As a release does: the two then never wait for each other."""
    hold = place_hold(db, product)
    lock(first, "holds", hold.hold_id)
    order = blocked(create_order, connect(), hold.hold_id)
    assert place_hold(impatient, product).status == "active"
    first.rollback()
    assert order.result().status == "pending_payment"


def pairs(products):
    return [(products if i % 2 else products[::-1],) for i in range(6)]


def test_batches_with_products_in_opposite_order_never_deadlock(db, at_once):
    products = [create_product(db, stock=1000) for _ in range(5)]

    def buy(conn, products):
        return [
            state for _ in range(40) for state in sqlstates(place_holds(conn, *[(p, 1) for p in products]))
        ]

    states = [state for states in at_once(buy, pairs(products)) for state in states]
    assert set(states) <= {None, LOCKED}
    assert sum(1000 - available(db, product) for product in products) == states.count(None)


def test_batches_with_holds_and_orders_in_opposite_order_never_deadlock(db, at_once):
    products = [create_product(db, stock=1000) for _ in range(5)]
    batches = [place_holds(db, *[(product, 1) for product in products]) for _ in range(20)]

    def settle(conn, direction):
        seen = set()
        for batch in batches:
            ids = [hold.hold_id for hold in batch][::direction]
            orders = create_orders(conn, *[(hold_id, f"k{hold_id}") for hold_id in ids])
            webhooks = [
                (f"p{order.order_id}", order.order_id, "success") for order in orders if order.order_id
            ]
            payments = apply_payments(conn, *webhooks)
            seen |= {*sqlstates(orders), *sqlstates(payments), *sqlstates(release_holds(conn, *ids))}
        return seen

    for seen in at_once(settle, [(1,), (-1,)] * 3):
        assert seen <= {None, LOCKED, "SA005", "SA006"}
