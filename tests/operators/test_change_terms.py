"""change_terms(), pause_sale(), resume_sale(): when, how and to whom a product is sold."""

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import psycopg
import pytest

from tests.support.sql_calls import (
    apply_payment,
    audit,
    available,
    change_terms,
    create_order,
    create_product,
    extend_hold,
    get_product,
    outcome,
    pause_sale,
    place_hold,
    place_holds,
    place_short_hold,
    refused,
    resume_sale,
    rows,
    sqlstates,
    value,
    wait_until_past,
)
from tests.support.waiting import wait_until_blocked

HOUR = timedelta(hours=1)
NOON = datetime(2030, 6, 1, 12, tzinfo=UTC)


def clock(db):
    return value(db, "select clock_timestamp()")


def members(row):
    return {name: datetime.fromisoformat(value) for name, value in row.members.items()}


def in_the_ledger(db, kind="terms_changed"):
    return [
        data
        for (data,) in rows(
            db, "select data from flashsale_data.events where kind = %s order by event_id", kind
        )
    ]


# --- the window ---


def test_a_product_without_terms_is_open(db):
    product = create_product(db)
    found = get_product(db, product)
    assert (found.sale_status, found.starts_at, found.ends_at, found.max_per_buyer) == (
        "open",
        None,
        None,
        None,
    )
    assert abs(found.now - clock(db)) < timedelta(seconds=30)
    assert in_the_ledger(db) == []


def test_a_hold_before_the_start_is_refused_with_the_start(db):
    starts_at = clock(db) + HOUR
    product = create_product(db, starts_at=starts_at)
    assert get_product(db, product).sale_status == "scheduled"
    with refused("SA012"):
        place_hold(db, product)
    for row in place_holds(db, (product, 1), (product, 2)):
        assert (row.sqlstate, members(row)) == ("SA012", {"starts_at": starts_at})


def test_a_hold_after_the_end_is_refused_with_the_end(db):
    ends_at = clock(db) - HOUR
    product = create_product(db, ends_at=ends_at)
    assert get_product(db, product).sale_status == "ended"
    with refused("SA013"):
        place_hold(db, product)
    (row,) = place_holds(db, (product, 1))
    assert members(row) == {"ends_at": ends_at}


def test_a_sale_opens_and_ends_by_itself_at_its_instants(db):
    starts_at = clock(db) + timedelta(milliseconds=300)
    ends_at = starts_at + timedelta(milliseconds=300)
    product = create_product(db, stock=1_000_000, starts_at=starts_at, ends_at=ends_at)
    seen = []
    while not seen or seen[-1] != "SA013":
        found = outcome(place_hold, db, product)
        seen.append(found if isinstance(found, str) else "placed")
    assert list(dict.fromkeys(seen)) == ["SA012", "placed", "SA013"]
    first, last = rows(db, "select min(placed_at), max(placed_at) from flashsale_data.holds")[0]
    assert starts_at <= first <= last < ends_at


@pytest.mark.parametrize(
    ("at", "status"),
    [(-1, "scheduled"), (0, "open"), (1, "open"), (59, "open"), (60, "ended"), (61, "ended")],
)
def test_a_window_includes_its_start_and_not_its_end(db, at, status):
    query = "select flashsale_data.sale_status(%s, %s, false, false, %s)"
    assert value(db, query, NOON, NOON + timedelta(minutes=1), NOON + timedelta(seconds=at)) == status


def test_early_requests_cost_neither_lock_nor_write(db, connect):
    """Another transaction has the product's lock; early requests do not wait for it."""
    product = create_product(db, starts_at=clock(db) + HOUR)
    ended = create_product(db, ends_at=clock(db))
    paused = create_product(db)
    pause_sale(db, paused)
    other = connect(autocommit=False)
    other.execute("select from flashsale_data.stock for update")
    written = "select pg_current_wal_insert_lsn()"
    db.execute("set lock_timeout = '2s'; set synchronous_commit = off")
    before = value(db, "select count(*) from flashsale_data.events")
    assert sqlstates(place_holds(db, (product, 1), (ended, 1), (paused, 1, None, "ann"))) == [
        "SA012", "SA013", "SA014",
    ]  # fmt: skip
    assert value(db, written) is not None
    assert value(db, "select count(*) from flashsale_data.events") == before
    assert value(db, "select txid_current_if_assigned()") is None


def test_a_sold_out_product_before_its_start_has_not_started(db):
    product = create_product(db, stock=0, starts_at=clock(db) + HOUR)
    with refused("SA012"):
        place_hold(db, product)


@pytest.mark.parametrize("buyer", [None, "ann"])
@pytest.mark.parametrize("level", ["read committed", "repeatable read"])
def test_a_batch_of_products_in_every_state(db, buyer, level):
    window = {"starts_at": clock(db) - HOUR, "ends_at": clock(db) + HOUR}
    products = {
        create_product(db): None,
        create_product(db, starts_at=clock(db) + HOUR): "SA012",
        create_product(db, ends_at=clock(db)): "SA013",
        create_product(db, **window): None,
        create_product(db, stock=0, **window): "SA002",
        create_product(db, stock=0): "SA002",
        create_product(db, max_per_buyer=1): None if buyer else "SA016",
        create_product(db, max_per_buyer=1, limit_group="shoe", **window): None if buyer else "SA016",
        create_product(db, max_per_hold=1, stock=0, starts_at=clock(db) + HOUR): "SA012",
        10**9: "SA001",
    }
    with db.transaction():
        db.execute(f"set transaction isolation level {level}")
        for order in (list(products), list(reversed(products))):
            with db.transaction(force_rollback=True):
                found = place_holds(db, *[(product, 1, None, buyer) for product in order])
                assert sqlstates(found) == [products[product] for product in order]


def test_what_was_held_in_time_is_ordered_and_paid_after_the_end(db):
    product = create_product(db)
    hold = place_hold(db, product)
    change_terms(db, product, ends_at=clock(db))
    order = create_order(db, hold.hold_id)
    assert apply_payment(db, "pays", order.order_id).result == "applied"


def test_a_replay_after_the_end_returns_the_hold(db):
    product = create_product(db)
    hold = place_hold(db, product, 1, "cart")
    change_terms(db, product, ends_at=clock(db))
    assert place_hold(db, product, 1, "cart").hold_id == hold.hold_id


# --- pause ---


def test_a_paused_sale_places_no_holds_and_all_else_goes_on(db):
    product, other = create_product(db), create_product(db)
    hold = place_hold(db, product)
    (terms,) = pause_sale(db, product)
    assert (terms.product_id, terms.sale_status, get_product(db, product).sale_status) == (
        product,
        "paused",
        "paused",
    )
    assert sqlstates(place_holds(db, (product, 1), (other, 1))) == ["SA014", None]
    extend_hold(db, hold.hold_id, hold.expires_at)
    assert apply_payment(db, "pays", create_order(db, hold.hold_id).order_id).result == "applied"
    assert resume_sale(db, product)[0].sale_status == "open"
    place_hold(db, product)
    assert len(in_the_ledger(db, "sale_paused")) == len(in_the_ledger(db, "sale_resumed")) == 1


def test_pausing_twice_is_pausing_once(db):
    product = create_product(db)
    pause_sale(db, product, product)
    pause_sale(db, product)
    assert len(in_the_ledger(db, "sale_paused")) == 1
    resume_sale(db, product)
    resume_sale(db, product)
    assert len(in_the_ledger(db, "sale_resumed")) == 1


def test_a_paused_sale_that_has_not_started_or_has_ended_says_so(db):
    early = create_product(db, starts_at=clock(db) + HOUR)
    over = create_product(db, ends_at=clock(db))
    assert [terms.sale_status for terms in pause_sale(db, early, over)] == ["scheduled", "ended"]


# --- terms ---


def test_all_terms_are_kept_and_returned(db):
    products = [create_product(db), create_product(db)]
    given = {
        "starts_at": NOON, "ends_at": NOON + HOUR, "max_per_buyer": 2, "limit_group": "shoe",
        "hold_time": timedelta(minutes=5), "payment_window": HOUR, "listed": False, "max_per_hold": 4,
    }  # fmt: skip
    found = change_terms(db, *reversed(products), **given)
    assert [row.product_id for row in found] == products
    for row in found:
        assert {name: getattr(row, name) for name in given} == given
        assert (row.sale_status, row.now is not None) == ("scheduled", True)
    created = create_product(db, **given)
    assert (
        rows(db, "select * from flashsale.terms where product_id = %s", created)[0]._asdict().items()
        >= given.items()
    )
    assert {name: in_the_ledger(db)[-1][name] for name in ("max_per_buyer", "limit_group", "listed")} == {
        "max_per_buyer": 2, "limit_group": "shoe", "listed": False,
    }  # fmt: skip


def test_a_term_that_is_left_out_stays(db):
    product = create_product(db, max_per_buyer=2, starts_at=NOON)
    found = change_terms(db, product, ends_at=NOON + HOUR)
    assert (found.starts_at, found.ends_at, found.max_per_buyer) == (NOON, NOON + HOUR, 2)


def test_terms_are_lifted(db):
    product = create_product(
        db, starts_at=NOON, ends_at=NOON + HOUR, max_per_buyer=2, limit_group="shoe", hold_time="1 hour",
        payment_window="1 hour", listed=False, max_per_hold=4,
    )  # fmt: skip
    found = change_terms(
        db, product, starts_at="-infinity", ends_at="infinity", max_per_buyer=0, limit_group="",
        hold_time="0", payment_window="0", listed=True, max_per_hold=0,
    )  # fmt: skip
    assert found[1:9] == (None, None, None, None, None, None, True, None)
    assert found.sale_status == "open"
    place_hold(db, product, 5)
    assert value(db, "select has_terms from flashsale_data.products") is False
    assert value(db, "select gated from flashsale_data.stock") is False


def test_terms_that_stay_as_they_are_are_no_event(db):
    product = create_product(db, max_per_buyer=2)
    change_terms(db, product, max_per_buyer=2)
    change_terms(db, product)
    assert len(in_the_ledger(db)) == 1


WRONG = [
    {"starts_at": "infinity"}, {"ends_at": "-infinity"}, {"starts_at": "10000-01-01"},
    {"ends_at": "1969-12-31 00:00Z"},
    {"starts_at": "2000-01-02", "ends_at": "2000-01-01"}, {"starts_at": NOON, "ends_at": NOON},
    {"max_per_buyer": -1}, {"max_per_hold": -1}, {"limit_group": "x" * 256},
    {"hold_time": "99 ms"}, {"hold_time": "25 hours"}, {"hold_time": "-1 s"},
    {"payment_window": "99 ms"}, {"payment_window": "31 days"}, {"payment_window": "-1 month"},
]  # fmt: skip


@pytest.mark.parametrize("terms", WRONG, ids=str)
def test_wrong_terms_are_refused_and_change_nothing(db, terms):
    """At creation, too, which then creates nothing."""
    products = [create_product(db), create_product(db)]
    with refused("SA009"):
        change_terms(db, *products, **terms)
    with refused("SA009"):
        create_product(db, **terms)
    assert value(db, "select count(*) from flashsale_data.products") == 2
    assert in_the_ledger(db) == []


def test_an_end_before_the_start_that_is_kept_is_refused(db):
    product = create_product(db, starts_at=NOON)
    with refused("SA009"):
        change_terms(db, product, ends_at=NOON - HOUR)
    with refused("SA009"):
        change_terms(db, product, create_product(db), ends_at=NOON)


def test_a_change_of_several_products_is_one_or_none(db):
    product = create_product(db)
    for products, sqlstate in (([product, 10**9], "SA001"), ([], "SA009"), ([product, None], "SA009")):
        for change in (change_terms, pause_sale, resume_sale):
            with refused(sqlstate):
                change(db, *products)
    with refused("SA009"):
        db.execute("select flashsale.change_terms(null)")
    assert get_product(db, product).sale_status == "open"


# --- times ---


def test_a_product_has_its_own_times(db):
    product = create_product(db, hold_time="1 hour", payment_window="1 day")
    other = create_product(db)
    hold, plain = place_holds(db, (product, 1), (other, 1))
    assert timedelta(minutes=59) < hold.expires_at - clock(db) <= HOUR + timedelta(seconds=0.1)
    assert plain.expires_at - clock(db) < timedelta(minutes=3)
    assert place_hold(db, product).expires_at - clock(db) > timedelta(minutes=59)
    order = create_order(db, hold.hold_id)
    assert timedelta(hours=23) < order.payment_due_at - clock(db) <= timedelta(hours=24, seconds=1)
    assert create_order(db, plain.hold_id).payment_due_at - clock(db) < timedelta(minutes=16)


def test_existing_holds_and_orders_keep_their_times(db):
    product = create_product(db)
    hold = place_hold(db, product)
    order = create_order(db, place_hold(db, product).hold_id)
    change_terms(db, product, hold_time="100 ms", payment_window="100 ms")
    found = "select expires_at from flashsale.get_hold(%s)"
    assert value(db, found, hold.hold_id) == hold.expires_at
    assert value(db, "select payment_due_at from flashsale_data.orders") == order.payment_due_at


# --- unlisted ---


def test_an_unlisted_product_is_sold_and_not_listed(db):
    listed, unlisted = create_product(db), create_product(db, listed=False)
    assert [id_ for (id_,) in rows(db, "select id from flashsale.list_products()")] == [listed]
    place_hold(db, unlisted)
    assert (available(db, unlisted), get_product(db, unlisted).id) == (9, unlisted)
    change_terms(db, unlisted, listed=True)
    assert [id_ for (id_,) in rows(db, "select id from flashsale.list_products()")] == [listed, unlisted]


def test_listed_products_have_their_terms(db):
    create_product(db, starts_at=NOON, max_per_buyer=3)
    (found,) = rows(
        db, "select sale_status, starts_at, ends_at, max_per_buyer from flashsale.list_products()"
    )
    assert found == ("scheduled", NOON, None, 3)


# --- keys of create_product() ---


def test_a_key_creates_a_product_with_its_terms_once(db):
    def create(**terms):
        given = "".join(f", p_{name} => %s" for name in terms)
        query = f"select flashsale.create_product('Sneaker', 10, 99, p_idempotency_key => 'k'{given})"
        return value(db, query, *terms.values())

    product = create(starts_at=NOON, limit_group="shoe")
    change_terms(db, product, starts_at="-infinity")
    assert create(limit_group="shoe", starts_at=NOON) == product
    for others in (
        {"starts_at": NOON, "limit_group": "shoe", "max_per_hold": 3},
        {},
        {"starts_at": NOON},
        {"starts_at": NOON, "limit_group": "hat"},
    ):
        with refused("SA008"):
            create(**others)


def test_a_key_of_a_call_without_terms_is_what_it_was_before_there_were_any(db):
    value(db, "select flashsale.create_product('Sneaker', 10, 99, 'USD', 'k')")
    assert value(db, "select arguments from flashsale_data.operations") == {
        "name": "Sneaker", "stock": 10, "price": 99, "currency": "USD",
    }  # fmt: skip


# --- concurrency ---


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


def test_a_hold_that_lapses_late_is_that_of_its_product(db):
    """The settings change nothing for a product that has its own time."""
    product = create_product(db, hold_time="1 hour")
    assert place_short_hold(db, product).expires_at > clock(db) + timedelta(minutes=59)
