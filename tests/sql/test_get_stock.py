"""flashsale.get_stock: where the units of products are at this instant."""

from tests.support.sql_calls import (
    apply_payment,
    change_terms,
    create_order,
    create_product,
    expire_due,
    place_hold,
    refused,
    rows,
    sell_in_every_way,
)


def get_stock(db, ids):
    return rows(db, "select * from flashsale.get_stock(%s::bigint[])", ids)


def units(db, product):
    [found] = get_stock(db, [product])
    return found.available_stock, found.held, found.awaiting, found.paid


def test_every_unit_is_somewhere(db):
    product = sell_in_every_way(db)
    assert units(db, product) == (93, 1, 2, 4)
    expire_due(db)
    assert units(db, product) == (93, 1, 2, 4)


def test_units_move_from_one_place_to_the_next(db, product):
    hold = place_hold(db, product, 3)
    held = units(db, product)
    order = create_order(db, hold.hold_id)
    awaiting = units(db, product)
    apply_payment(db, "p", order.order_id)
    assert [held[1:], awaiting[1:], units(db, product)[1:]] == [(3, 0, 0), (0, 3, 0), (0, 0, 3)]


def test_the_instant_goes_on(db, product):
    first, second = (get_stock(db, [product])[0].at for _ in range(2))
    assert first < second


def test_products_by_ascending_id_once_each_and_unknown_ones_left_out(db):
    one, two = create_product(db, 1), create_product(db, 2)
    found = get_stock(db, [two, 12345, one, two, None])
    assert [(row.id, row.total_stock) for row in found] == [(one, 1), (two, 2)]
    assert get_stock(db, []) == []


def test_the_terms_of_the_sale(db, product):
    def terms():
        [found] = get_stock(db, [product])
        return found.sale_status, found.starts_at, found.ends_at, found.max_per_buyer

    assert terms() == ("open", None, None, None)
    starts_at, ends_at = db.execute("select now() + interval '1 hour', now() + interval '2 hours'").fetchone()
    change_terms(db, product, starts_at=starts_at, ends_at=ends_at, max_per_buyer=2)
    assert terms() == ("scheduled", starts_at, ends_at, 2)


def test_a_thousand_at_most(db, product):
    assert len(get_stock(db, [product] * 1000)) == 1
    with refused("SA009"):
        get_stock(db, [product] * 1001)
    with refused("SA009"):
        get_stock(db, None)
