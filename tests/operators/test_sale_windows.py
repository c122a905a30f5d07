"""When a product is sold: starts_at, ends_at, pause_sale() and resume_sale()."""

from datetime import UTC, datetime, timedelta

import pytest

from tests.operators.terms import clock, in_the_ledger
from tests.support.sql_calls import (
    apply_payment,
    change_terms,
    create_order,
    create_product,
    extend_hold,
    get_product,
    outcome,
    pause_sale,
    place_hold,
    place_holds,
    refused,
    resume_sale,
    rows,
    sqlstates,
    value,
)

HOUR = timedelta(hours=1)
NOON = datetime(2030, 6, 1, 12, tzinfo=UTC)


def members(row):
    return {
        name: datetime.fromisoformat(value) if name in ("starts_at", "ends_at") else value
        for name, value in row.members.items()
    }


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
        assert (row.sqlstate, members(row)) == ("SA012", {"starts_at": starts_at, "retry_after": 60})


@pytest.mark.parametrize(("starts_in", "seconds"), [("45.5 s", 46), ("1.5 s", 2), ("1 h", 60)])
def test_a_hold_before_the_start_is_asked_to_wait_until_then_by_this_clock(db, starts_in, seconds):
    starts_at = value(db, "select clock_timestamp() + %s::interval", starts_in)
    (row,) = place_holds(db, (create_product(db, starts_at=starts_at), 1))
    assert row.members["retry_after"] in (seconds - 1, seconds)


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
