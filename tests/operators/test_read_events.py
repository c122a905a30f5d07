"""read_events(): returns the ledger without skipping events that are committed late."""

from contextlib import contextmanager

import psycopg
import pytest

from tests.support import ROOT
from tests.support.sale_steps import (
    audit,
    create_order,
    create_product,
    expire_due,
    make_short,
    one,
    order,
    pay,
    place_hold,
    place_many,
    refused,
    wait_until_lapsed,
)


def read(conn, after=0, limit=10000):
    """Ids and kinds of events."""
    return conn.execute("select event_id, kind from flashsale.read_events(%s, %s)", (after, limit)).fetchall()


def ids(rows):
    return [event_id for event_id, _ in rows]


def newest(conn):
    return one(conn, "select coalesce(max(event_id), 0) from flashsale_data.events")


@contextmanager
def without_announcements(db):
    """Removes the announcement that a writer makes before it draws an id."""
    db.execute(
        "create or replace function flashsale_data.announce_ledger_write() returns void language sql as ''"
    )
    try:
        yield
    finally:
        db.execute((ROOT / "sql/internal/announce_ledger_write.sql").read_text())


@pytest.fixture
def late_and_early(db, connect):
    """Two open transactions for two products; the late one has drawn the lower event id."""
    products = create_product(db), create_product(db)
    late, early = connect(autocommit=False), connect(autocommit=False)
    place_hold(late, products[0])
    place_hold(early, products[1])
    return late, early


def test_an_empty_ledger_has_no_rows(db):
    assert read(db) == []


def test_events_come_by_ascending_id_a_page_at_a_time(db):
    product = create_product(db)
    for _ in range(4):
        place_hold(db, product)
    whole = read(db)
    assert ids(whole) == sorted(ids(whole))
    first = read(db, 0, 2)
    second = read(db, first[-1][0], 2)
    third = read(db, second[-1][0], 2)
    assert first + second + third == whole
    assert len(whole) == 5
    assert read(db, third[-1][0]) == []


def test_an_event_names_its_product_hold_order_and_payment(db):
    product = create_product(db)
    hold = place_hold(db, product, 2)
    made = create_order(db, hold)
    pay(db, made, "failed", key="pay_1")
    told = db.execute(
        "select kind, product_id, hold_id, order_id, payment_key, available_delta, data"
        " from flashsale.read_events(0, 100)"
    ).fetchall()
    assert told == [
        ("product_created", product, None, None, None, 10, None),
        ("hold_placed", product, hold, None, None, -2, None),
        ("order_created", product, hold, made, None, 0, None),
        ("order_cancelled", product, hold, made, "pay_1", 2, {"cancel_reason": "payment_failed"}),
    ]


def test_a_late_commit_is_not_skipped(db, late_and_early):
    late, early = late_and_early
    start = newest(db)
    early.commit()
    assert newest(db) == start + 2, "the late one has drawn the lower id"
    assert read(db, start) == [], "the reader stops before what may still come"
    late.commit()
    assert read(db, start) == [(start + 1, "hold_placed"), (start + 2, "hold_placed")]


def test_control_without_announcements_the_late_commit_is_skipped(db, connect):
    with without_announcements(db):
        products = create_product(db), create_product(db)
        start = newest(db)
        late = connect(autocommit=False)
        place_hold(late, products[0])
        place_hold(db, products[1])
        seen = read(db, start)
        late.commit()
        seen += read(db, seen[-1][0])
    assert ids(seen) == [start + 2]


def test_events_before_an_open_transaction_are_read(db, late_and_early):
    late, early = late_and_early
    early.commit()
    assert [kind for _, kind in read(db)] == ["product_created", "product_created"]
    late.commit()
    assert len(read(db)) == 4


def test_a_transaction_that_only_reads_delays_no_event(db, connect):
    product = create_product(db)
    reader = connect(autocommit=False)
    reader.execute("select * from flashsale.get_product(%s)", (product,))
    hold = place_hold(db, product)
    assert hold is not None
    assert len(read(db)) == 2
    assert len(read(reader)) == 2


def test_an_aborted_transaction_leaves_a_gap_and_no_stall(db, late_and_early):
    late, early = late_and_early
    start = newest(db)
    early.commit()
    late.rollback()
    assert ids(read(db, start)) == [start + 2]


def test_a_terminated_session_leaves_no_stall(db, late_and_early):
    late, early = late_and_early
    start = newest(db)
    early.commit()
    pid = late.info.backend_pid
    late.close()
    one(db, "select pg_terminate_backend(%s, 10000)", pid)
    assert ids(read(db, start)) == [start + 2]


def test_a_writer_reads_its_own_events_only_once_they_are_committed(db, connect):
    product = create_product(db)
    writer = connect(autocommit=False)
    place_hold(writer, product)
    assert len(read(writer)) == 1
    writer.commit()
    assert len(read(writer)) == 2


def test_a_refused_request_delays_no_event(db, connect):
    product = create_product(db, stock=1)
    place_hold(db, product)
    buyer = connect(autocommit=False)
    buyer.execute(
        "select * from flashsale.place_holds(array[1], array[%s], array[1], array[null])", (product,)
    )
    assert len(read(db)) == 2


def test_no_event_is_skipped_or_repeated_while_many_write(db, connect):
    """Four writers whose transactions overlap in every order, one reader that never waits."""
    products = [create_product(db, stock=1000) for _ in range(4)]
    writers = [connect(autocommit=False) for _ in products]
    seen = ids(read(db))
    for number in range(200):
        writer = number * 7 % 4
        place_hold(writers[writer], products[writer])
        if number % 3 == 0:
            ended = writers[number * 5 % 4]
            ended.rollback() if number % 5 == 0 else ended.commit()
        seen += ids(read(db, seen[-1]))
    for writer in writers:
        writer.commit()
    seen += ids(read(db, seen[-1]))
    assert seen == [
        number for (number,) in db.execute("select event_id from flashsale_data.events order by 1")
    ]


@pytest.mark.parametrize("last", [2**31 - 3, 2**31, 2**32 + 5, 2**40])
def test_a_late_commit_is_not_skipped_however_high_the_ids(db, connect, last):
    """An announcement keeps 31 bits of the last id."""
    products = create_product(db), create_product(db)
    db.execute("select setval('flashsale_data.event_ids', %s)", (last,))
    late = connect(autocommit=False)
    place_hold(late, products[0])
    for _ in range(5):
        place_hold(db, products[1])
    assert read(db, last) == []
    late.commit()
    assert ids(read(db, last)) == list(range(last + 1, last + 7))


def test_an_announcement_after_the_read_began_does_not_bound_it(db, connect):
    """A writer may announce a later id than the last one that the reader has read before."""
    place_hold(db, create_product(db))
    connect(autocommit=False).execute(
        "select pg_advisory_xact_lock_shared(hashtext('flashsale.ledger'), %s)", (newest(db) + 3,)
    )
    assert len(read(db)) == 2


def test_announcements_in_another_database_do_not_count(db, database_url, connect):
    place_hold(db, create_product(db))
    with psycopg.connect(psycopg.conninfo.make_conninfo(database_url, dbname="postgres")) as other:
        other.execute("select pg_advisory_xact_lock_shared(hashtext('flashsale.ledger'), 0)")
        assert len(read(db)) == 2


@pytest.mark.parametrize("level", ["REPEATABLE_READ", "SERIALIZABLE"])
def test_read_events_is_refused_above_read_committed(db, connect, level):
    reader = connect(autocommit=False)
    reader.isolation_level = psycopg.IsolationLevel[level]
    with refused("SA009"):
        read(reader)


@pytest.mark.parametrize(
    ("after", "limit"), [(None, 1), (0, None), (0, 0), (0, -1), (0, 10001), (0, 2**31 - 1)]
)
def test_bad_arguments_are_refused(db, after, limit):
    with refused("SA009"):
        read(db, after, limit)


@pytest.mark.parametrize(("after", "count"), [(-(2**63), 1), (-1, 1), (2**63 - 1, 0)])
def test_any_bigint_may_be_read_after(db, after, count):
    create_product(db)
    assert len(read(db, after)) == count


def release(db, hold):
    db.execute("select flashsale.release_hold(%s)", (hold,))


def adjust(db, product, delta, key=None):
    db.execute("select flashsale.adjust_stock(%s, %s, %s)", (product, delta, key))


def change_price(db, product, price):
    db.execute("select flashsale.change_price(%s, %s)", (product, price))


# What each change appends: kind and available_delta, for a product with 10 in stock.

CHANGES = {
    "a hold is placed": (lambda s: place_hold(s.db, s.product, 2), [("hold_placed", -2)]),
    "a replay is none": (lambda s: place_hold(s.db, s.product, 1, "known"), []),
    "a hold is released": (lambda s: release(s.db, s.hold), [("hold_released", 3)]),
    "a hold becomes an order": (lambda s: create_order(s.db, s.hold), [("order_created", 0)]),
    "an order is paid": (lambda s: pay(s.db, s.order), [("order_paid", 0)]),
    "an order fails": (lambda s: pay(s.db, s.order, "failed"), [("order_cancelled", 1)]),
    "a payment is cancelled": (lambda s: pay(s.db, s.order, "cancelled"), [("order_cancelled", 1)]),
    "a paid order fails": (lambda s: pay(s.db, s.paid, "failed"), []),
    "an order is paid twice": (lambda s: pay(s.db, s.paid), [("refund_due", 0)]),
    "a cancelled order is paid": (lambda s: pay(s.db, s.cancelled), [("refund_due", 0)]),
    "a failed order is paid": (lambda s: pay(s.db, s.failed), [("order_paid", -1)]),
    "the amount is wrong": (lambda s: pay(s.db, s.order, amount="1.00"), [("amount_mismatch", 0)]),
    "a stored webhook": (lambda s: pay(s.db, 1_000_000), [("payment_stored", 0)]),
    "more stock": (lambda s: adjust(s.db, s.product, 4), [("stock_adjusted", 4)]),
    "less stock": (lambda s: adjust(s.db, s.product, -1), [("stock_adjusted", -1)]),
    "stock with a known key": (lambda s: adjust(s.db, s.product, 2, "delivery"), []),
    "another price": (lambda s: change_price(s.db, s.product, 89), [("price_changed", 0)]),
    "the same price": (lambda s: change_price(s.db, s.product, 99), []),
    "another product": (lambda s: create_product(s.db, 7), [("product_created", 7)]),
    "a webhook before its order": (
        lambda s: (pay(s.db, s.next_order), create_order(s.db, s.hold)),
        [("payment_stored", 0), ("order_created", 0), ("order_paid", 0)],
    ),
    "other settings": (lambda s: make_short(s.db), []),
}  # fmt: skip


class Situation:
    """A shop in which every kind of change is possible."""

    def __init__(self, db):
        self.db = db
        self.product = create_product(db)
        place_hold(db, self.product, 1, "known")
        self.hold = place_hold(db, self.product, 3)
        self.paid, self.failed, self.cancelled = (order(db, self.product) for _ in range(3))
        pay(db, self.paid)
        pay(db, self.failed, "failed")
        pay(db, self.cancelled, "cancelled")
        self.order = order(db, self.product)
        adjust(db, self.product, 2, "delivery")
        self.next_order = self.order + 1


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_appends_exactly_these_events(db, change):
    situation = Situation(db)
    start = newest(db)
    act, expected = CHANGES[change]
    act(situation)
    appended = db.execute(
        "select kind, available_delta from flashsale.read_events(%s, 100)", (start,)
    ).fetchall()
    assert appended == expected
    sums = db.execute(
        "select s.available_stock, (select sum(e.available_delta) from flashsale_data.events e"
        " where e.product_id = s.product_id) from flashsale.stock s"
    ).fetchall()
    assert all(stock == ledger for stock, ledger in sums)
    assert audit(db) == []


def test_a_refusal_appends_no_event(db):
    situation = Situation(db)
    start = newest(db)
    for sqlstate, act in [
        ("SA002", lambda: place_hold(db, situation.product, 100)),
        ("SA001", lambda: place_hold(db, 999)),
        ("SA003", lambda: create_order(db, 999)),
        ("SA009", lambda: pay(db, situation.order, "odd")),
        ("SA010", lambda: db.execute("select flashsale.adjust_stock(%s, -100)", (situation.product,))),
    ]:
        with refused(sqlstate):
            act()
    assert newest(db) == start


def test_an_overdue_order_that_is_paid_gives_back_and_takes_again(db):
    product = create_product(db)
    make_short(db)
    overdue = order(db, product, 2)
    wait_until_lapsed(db)
    start = newest(db)
    assert pay(db, overdue) == "applied"
    appended = db.execute(
        "select kind, available_delta from flashsale.read_events(%s, 100)", (start,)
    ).fetchall()
    assert appended == [("order_cancelled", 2), ("order_paid", -2)]
    assert audit(db) == []


def test_sums_of_deltas_equal_available_stock_after_a_sweep(db):
    product = create_product(db, stock=50)
    make_short(db)
    place_many(db, product, 10)
    paid, _ = order(db, product, 3), order(db, product, 4)
    pay(db, paid)
    wait_until_lapsed(db)
    while expire_due(db):
        pass
    assert one(db, "select sum(available_delta) from flashsale_data.events") == 47
    assert one(db, "select available_stock from flashsale.stock") == 47
