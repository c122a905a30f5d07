"""Slots: every id tells its slot, and a shard serves its own."""

import pytest

from tests.shards.sql.shops import create_in
from tests.support.sql_calls import (
    abandon_order,
    adjust_stock,
    apply_payment,
    apply_payments,
    change_terms,
    create_order,
    create_orders,
    create_product,
    extend_hold,
    get_allowance,
    get_hold,
    get_order,
    get_product,
    next_order_id,
    place_hold,
    place_holds,
    refused,
    release_hold,
    row,
    rows,
    sqlstates,
    value,
)


def counts(conn):
    tables = ("products", "holds", "orders", "payments", "events", "operations")
    return [value(conn, f"select count(*) from flashsale_data.{table}") for table in tables]


# --- how a shop is divided ---


def test_a_shop_has_one_slot_unless_told_otherwise(db):
    assert row(db, "select * from flashsale.get_shard()") == (1, [0])
    product = create_product(db)
    hold = place_hold(db, product)
    assert (product, create_order(db, hold.hold_id).order_id) == (1, 1)


def test_it_is_divided_before_it_has_a_product(db):
    assert row(db, "select * from flashsale.set_shard(16)") == (16, list(range(16)))


def test_the_same_number_again_changes_nothing(source):
    assert row(source, "select * from flashsale.set_shard(4)") == (4, [0, 1])
    assert row(source, "select * from flashsale.set_shard(4, '{1, 0, 1}')") == (4, [0, 1])


@pytest.mark.parametrize("arguments", ["8", "1", "4, '{0}'"])
def test_the_number_is_fixed(source, arguments):
    with refused("SA009"):
        row(source, f"select * from flashsale.set_shard({arguments})")


def test_a_shop_with_a_product_is_not_divided_any_more(db):
    create_product(db)
    with refused("SA009"):
        row(db, "select * from flashsale.set_shard(4)")
    assert row(db, "select * from flashsale.set_shard(1)") == (1, [0])


@pytest.mark.parametrize(
    "arguments", ["0", "3", "-4", "512", "null", "4, '{4}'", "4, '{-1}'", "4, '{null}'", "1, '{}'"]
)
def test_it_is_divided_by_a_power_of_two(db, arguments):
    with refused("SA009"):
        row(db, f"select * from flashsale.set_shard({arguments})")


# --- ids ---


def test_ids_tell_the_slot(source, target):
    for shard, slots in ((source, {0, 1}), (target, {2, 3})):
        found = set()
        for _ in range(4):
            product = create_product(shard)
            outcomes = place_holds(shard, *[(product, 1)] * 5)
            orders = create_orders(shard, *[(hold.hold_id,) for hold in outcomes])
            ids = [hold.hold_id for hold in outcomes] + [order.order_id for order in orders]
            assert {id_ % 4 for id_ in ids} == {product % 4}
            assert [order.order_id for order in orders] == sorted(order.order_id for order in orders)
            found.add(product % 4)
        assert found == slots


def test_a_batch_has_holds_and_orders_of_several_slots(source):
    products = [create_in(source, slot) for slot in (0, 1)]
    holds = place_holds(source, *[(product, 1) for product in products * 3])
    orders = create_orders(source, *[(hold.hold_id,) for hold in holds])
    assert [hold.hold_id % 4 for hold in holds] == [order.order_id % 4 for order in orders] == [0, 1] * 3


def test_the_next_order_id_is_of_the_products_slot(source):
    product = create_in(source, 1)
    expected = value(source, "select flashsale.next_order_id(%s)", product)
    assert create_order(source, place_hold(source, product).hold_id).order_id == expected
    assert value(source, "select flashsale.next_order_id()") is None


def test_a_product_is_created_in_a_slot_of_this_shard(source):
    assert create_in(source, 1) % 4 == 1
    with refused("SA029"):
        create_in(source, 2)
    with refused("SA009"):
        create_in(source, 4)


def test_a_shard_without_slots_creates_no_product(db):
    row(db, "select * from flashsale.set_shard(4, '{}')")
    with refused("SA029"):
        create_product(db)


def test_a_repeated_creation_finds_its_product_in_whatever_slot(source):
    created = create_in(source, None, idempotency_key="k")
    create_product(source)
    assert create_in(source, None, idempotency_key="k") == created


def test_one_key_creates_a_product_in_each_slot(source):
    first, second = (create_in(source, slot, idempotency_key="k") for slot in (0, 1))
    assert (first % 4, second % 4) == (0, 1)
    assert [create_in(source, slot, idempotency_key="k") for slot in (0, 1)] == [first, second]


# --- limit groups ---


def test_a_limit_group_stays_in_one_slot(source):
    first = create_in(source, 1, limit_group="shoes")
    assert {create_product(source, limit_group="shoes") % 4 for _ in range(3)} == {1}
    other = create_in(source, 0)
    with refused("SA009"):
        change_terms(source, other, limit_group="shoes")
    with refused("SA009"):
        create_in(source, 0, limit_group="shoes")
    change_terms(source, first, limit_group="socks")


# --- idempotency keys ---


def test_a_key_counts_within_its_slot(source):
    here, there = create_in(source, 0), create_in(source, 1)
    first, second = place_holds(source, (here, 1, "k"), (there, 1, "k"))
    assert sqlstates([first, second]) == [None, None]
    assert place_hold(source, there, 1, "k").hold_id == second.hold_id
    with refused("SA008"):
        place_hold(source, here, 2, "k")
    orders = create_orders(source, (first.hold_id, "o"), (second.hold_id, "o"))
    assert sqlstates(orders) == [None, None]
    webhooks = [("p", order.order_id, "success") for order in orders]
    assert [outcome.result for outcome in apply_payments(source, *webhooks)] == ["applied", "applied"]
    assert all(outcome.replayed for outcome in apply_payments(source, *webhooks))
    keys = rows(source, "select idempotency_key from flashsale.payments order by 1")
    assert keys == [("0/p",), ("1/p",)]


def test_a_long_key_counts_whole(source):
    product = create_in(source, 0)
    long = "k" * 255
    hold = place_hold(source, product, 1, long)
    assert place_hold(source, product, 1, long).hold_id == hold.hold_id
    assert place_hold(source, product, 1, long[:-1] + "x").hold_id != hold.hold_id
    with refused("SA009"):
        place_hold(source, product, 1, "k" * 256)
    with refused("SA009"):
        place_hold(source, product, 1, "")


def test_a_refund_names_its_payment_with_or_without_the_slot(source):
    order = create_order(source, place_hold(source, create_in(source, 1)).hold_id)
    apply_payment(source, "p", order.order_id)
    refund = "select payment_key from flashsale.record_refund(%s, %s, 1, 'done')"
    assert value(source, refund, "re_1", "p") == value(source, refund, "re_2", "1/p") == "1/p"
    other = create_order(source, place_hold(source, create_in(source, 0)).hold_id)
    apply_payment(source, "p", other.order_id)
    with refused("SA009") as raised:
        value(source, refund, "re_3", "p")
    assert "0/p" in raised.value.diag.message_detail
    assert value(source, refund, "re_3", "0/p") == "0/p"


def test_a_rejected_webhook_is_understood_under_its_own_key(source):
    order = create_order(source, place_hold(source, create_in(source, 1)).hold_id)
    webhook = (order.order_id, "success")
    value(
        source,
        "select flashsale.record_rejected_webhook(null, '{}', 'malformed_json', 'd', 'p', %s, %s)",
        *webhook,
    )
    assert len(rows(source, "select * from flashsale.rejected_webhooks")) == 1
    row(
        source,
        "select * from flashsale.apply_payments(array[1], array['p'], array[%s], array[%s],"
        " array['{}'::jsonb], array[''])",
        *webhook,
    )
    assert rows(source, "select * from flashsale.rejected_webhooks") == []


# --- ids of another shard ---

OF_ANOTHER_SHARD = {
    "place_hold": lambda conn, shop: place_hold(conn, shop.product),
    "get_product": lambda conn, shop: get_product(conn, shop.product),
    "get_stock": lambda conn, shop: rows(conn, "select * from flashsale.get_stock(%s)", [shop.product]),
    "get_allowance": lambda conn, shop: get_allowance(conn, shop.product, "ann"),
    "adjust_stock": lambda conn, shop: adjust_stock(conn, shop.product, 1),
    "change_price": lambda conn, shop: value(conn, "select flashsale.change_price(%s, 1)", shop.product),
    "change_terms": lambda conn, shop: change_terms(conn, shop.product, max_per_buyer=1),
    "pause_sale": lambda conn, shop: rows(conn, "select * from flashsale.pause_sale(%s)", [shop.product]),
    "preview": lambda conn, shop: row(conn, "select * from flashsale.preview_cancel_sale(%s)", shop.product),
    "cancel_sale": lambda conn, shop: row(conn, "select * from flashsale.cancel_sale(%s, 0)", shop.product),
    "get_hold": lambda conn, shop: get_hold(conn, shop.hold),
    "release_hold": lambda conn, shop: release_hold(conn, shop.hold),
    "extend_hold": lambda conn, shop: extend_hold(conn, shop.hold, "now"),
    "create_order": lambda conn, shop: create_order(conn, shop.hold),
    "get_order": lambda conn, shop: get_order(conn, shop.order),
    "get_orders": lambda conn, shop: row(
        conn, "select * from flashsale.get_orders(array[1], array[%s], array[%s])", shop.order, shop.hold
    ),
    "abandon_order": lambda conn, shop: abandon_order(conn, shop.order, shop.hold),
    "cancel_order": lambda conn, shop: row(conn, "select * from flashsale.cancel_order(%s)", shop.order),
    "apply_payment": lambda conn, shop: apply_payment(conn, "p", shop.order),
    "declined": lambda conn, shop: apply_payment(conn, "p", shop.order, "declined"),
    "unknown order": lambda conn, shop: apply_payment(conn, "p", shop.order + 4000),
}


class Shop:
    def __init__(self, conn):
        self.product = create_product(conn)
        self.hold = place_hold(conn, self.product).hold_id
        self.order = create_order(conn, place_hold(conn, self.product).hold_id).order_id


@pytest.mark.parametrize("call", OF_ANOTHER_SHARD.values(), ids=OF_ANOTHER_SHARD)
def test_an_id_of_another_shard_is_refused(source, target, call):
    with refused("SA029"):
        call(source, Shop(target))


def test_one_id_of_another_shard_refuses_the_whole_call(source, target):
    ours, theirs = Shop(source), Shop(target)
    before = counts(source)
    for call in (
        lambda: place_holds(source, (ours.product, 1, "k"), (theirs.product, 1, "k")),
        lambda: create_orders(source, (ours.hold, "k"), (theirs.hold, "k")),
        lambda: apply_payments(source, ("p", ours.order, "success"), ("q", theirs.order + 4000, "success")),
    ):
        with refused("SA029"):
            call()
        assert counts(source) == before


def test_an_unknown_id_of_this_shard_is_not_found(source):
    create_in(source, 0)
    with refused("SA001"):
        place_hold(source, 400)
    with refused("SA003"):
        create_order(source, 400)
    with refused("SA007"):
        get_order(source, 400)
    with refused("SA001"):
        place_hold(source, -2)
    assert apply_payment(source, "p", 400).result == "stored"


def test_with_one_slot_every_id_is_its_own(db):
    for product in (0, 1, 2**53 - 1, -1):
        with refused("SA001"):
            place_hold(db, product)
    assert apply_payment(db, "p", next_order_id(db)).result == "stored"
