"""change_terms(): how and to whom a product is sold; the terms of create_product()."""

from datetime import UTC, datetime, timedelta

import pytest

from tests.operators.terms import clock, in_the_ledger
from tests.support.sql_calls import (
    available,
    change_terms,
    create_order,
    create_product,
    get_product,
    pause_sale,
    place_hold,
    place_holds,
    place_short_hold,
    refused,
    resume_sale,
    rows,
    value,
)

HOUR = timedelta(hours=1)
NOON = datetime(2030, 6, 1, 12, tzinfo=UTC)


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


def test_a_hold_that_lapses_late_is_that_of_its_product(db):
    """The settings change nothing for a product that has its own time."""
    product = create_product(db, hold_time="1 hour")
    assert place_short_hold(db, product).expires_at > clock(db) + timedelta(minutes=59)


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
