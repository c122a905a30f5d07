"""flashsale.get_product, get_hold, get_order and their sets: what is so at this instant."""

from decimal import Decimal

import pytest

from tests.support.sql_calls import (
    apply_payment,
    available,
    create_order,
    create_product,
    expire_due,
    get_hold,
    get_order,
    get_product,
    place_hold,
    place_lapsed_hold,
    refused,
    rows,
    sell_in_every_way,
    sqlstates,
)


def test_a_product_with_its_exact_stock(db):
    product = create_product(db, stock=50, price="99")
    place_hold(db, product, 12)
    found = get_product(db, product)
    assert found[:6] == (product, "Sneaker", Decimal("99.00"), "USD", 50, 38)
    assert str(found.price) == "99.00"


def test_what_is_available_is_what_is_not_held_awaited_or_paid(db):
    product = sell_in_every_way(db)
    assert available(db, product) == 100 - 1 - 2 - 4
    assert expire_due(db) == 2
    assert available(db, product) == 100 - 1 - 2 - 4


def test_unknown_ids_are_not_found(db):
    for unknown in (12345, -1, 2**63 - 1):
        with refused("SA001"):
            get_product(db, unknown)
        with refused("SA003"):
            get_hold(db, unknown)
        with refused("SA007"):
            get_order(db, unknown)


def test_a_hold_through_its_life(db, product):
    hold = place_hold(db, product, 2)
    assert get_hold(db, hold.hold_id) == (hold.hold_id, product, 2, "active", hold.expires_at, None, None)
    order = create_order(db, hold.hold_id)
    assert get_hold(db, hold.hold_id)[3:] == ("ordered", hold.expires_at, order.order_id, "pending_payment")
    apply_payment(db, "p", order.order_id)
    assert get_hold(db, hold.hold_id).order_status == "paid"


def test_an_order_through_its_life(db, product):
    hold = place_hold(db, product, 2)
    order = create_order(db, hold.hold_id)
    found = get_order(db, order.order_id)
    assert found._replace(created_at=None) == (
        *(order.order_id, hold.hold_id, product, 2, "pending_payment", None),
        *(Decimal("198.00"), "USD", None, order.payment_due_at),
    )
    apply_payment(db, "f", order.order_id, "failed")
    assert get_order(db, order.order_id) == found._replace(status="cancelled", cancel_reason="payment_failed")
    apply_payment(db, "s", order.order_id, "success")
    assert get_order(db, order.order_id) == found._replace(status="paid")


def test_many_products_in_the_order_asked_for(db):
    one, two = create_product(db, 1), create_product(db, 2)
    found = rows(
        db,
        "select * from flashsale.get_products(array[5, 6, 7, 8, 9], %s::bigint[])",
        [two, one, two, 12345, None],
    )
    assert [(f.request_no, f.sqlstate, f.id, f.available_stock) for f in found] == [
        (5, None, two, 2),
        (6, None, one, 1),
        (7, None, two, 2),
        (8, "SA001", None, None),
        (9, "SA009", None, None),
    ]


def test_many_holds_in_the_order_asked_for(db, product):
    lapsed, active = place_lapsed_hold(db, product), place_hold(db, product)
    ids = [active.hold_id, 5, lapsed.hold_id, active.hold_id]
    found = rows(db, "select * from flashsale.get_holds(array[4, 3, 2, 1], %s::bigint[])", ids)
    assert [(f.request_no, f.sqlstate, f.status) for f in found] == [
        (4, None, "active"),
        (3, "SA003", None),
        (2, None, "expired"),
        (1, None, "active"),
    ]


def test_an_order_is_shown_only_with_its_hold_id(db, product):
    hold, other = place_hold(db, product), place_hold(db, product)
    order = create_order(db, hold.hold_id)
    create_order(db, other.hold_id)
    found = rows(
        db,
        "select * from flashsale.get_orders(array[1, 2, 3, 4], %s::bigint[], %s::bigint[])",
        [order.order_id] * 3 + [12345],
        [hold.hold_id, other.hold_id, None, hold.hold_id],
    )
    assert sqlstates(found) == [None, "SA007", "SA007", "SA007"]
    assert (found[0].order_id, found[0].status) == (order.order_id, "pending_payment")
    assert {f[3:] for f in found[1:]} == {(None,) * 9}


def test_the_list_of_products_is_paged_by_ascending_id(db):
    ids = [create_product(db, stock) for stock in range(5)]
    place_hold(db, ids[4], 3)

    def page(after, limit):
        found = rows(db, "select id, available_stock from flashsale.list_products(%s, %s::int)", after, limit)
        return [tuple(product) for product in found]

    assert page(0, 2) == [(ids[0], 0), (ids[1], 1)]
    assert page(ids[1], 2) == [(ids[2], 2), (ids[3], 3)]
    assert page(ids[3], 2) == [(ids[4], 1)]
    assert page(ids[4], 2) == []
    assert [product.id for product in rows(db, "select * from flashsale.list_products()")] == ids


def test_a_page_has_1_to_1000_products(db):
    for after, limit in ((0, 0), (0, -1), (0, 1001), (0, None), (None, 10)):
        with refused("SA009"):
            rows(db, "select * from flashsale.list_products(%s::bigint, %s::int)", after, limit)


@pytest.mark.parametrize("call", ["get_product(null)", "get_hold(null)", "get_order(null)"])
def test_nothing_is_no_id(db, call):
    with refused("SA009"):
        db.execute(f"select * from flashsale.{call}")
