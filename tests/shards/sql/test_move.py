"""A slot moves between two databases: what goes along, what stays, where a move may be interrupted."""

import psycopg
import pytest

from tests.shards.sql.shops import Shop, create_in, early_order_id
from tests.support.slot_moves import (
    clear,
    export,
    export_changes,
    exported,
    give_up,
    load,
    move,
    own,
    owned,
    receive,
    slot_of,
)
from tests.support.sql_calls import (
    apply_payment,
    audit,
    available,
    change_settings,
    change_terms,
    create_order,
    create_product,
    expire_due,
    get_allowance,
    get_hold,
    get_order,
    get_product,
    place_hold,
    place_holds,
    refused,
    release_hold,
    row,
    rows,
    value,
    wait_until_past,
)


@pytest.fixture
def shop(source):
    return Shop(source)


STAYS = {
    "arriving_rows", "awaited_payments", "departed_slots", "events", "inbox", "ledger_carried", "purge_state",
    "rejection_counter", "scheduler", "schema_state", "settings", "shard",
}  # fmt: skip
"""tables of a shard's own"""


def ledger(conn, product):
    return value(
        conn,
        "select coalesce(sum(available_delta), 0) from flashsale_data.events where product_id = %s",
        product,
    )


def test_every_table_moves_or_stays(source):
    tables = (
        "select relname from pg_class where relnamespace = 'flashsale_data'::regnamespace and relkind = 'r'"
    )
    moves = "select table_name from flashsale_data.slot_tables()"
    assert {name for (name,) in rows(source, tables)} - {name for (name,) in rows(source, moves)} == STAYS


def test_all_of_a_slot_goes_along(source, target, shop):
    other = create_in(source, 0)
    before = get_product(source, shop.product)
    move(source, target, 1)
    assert (owned(source), owned(target)) == ([0], [1, 2, 3])
    assert get_product(target, shop.product)[:-1] == before[:-1]
    assert get_hold(target, shop.hold).status == "active"
    assert get_order(target, shop.pending).status == "pending_payment"
    assert get_order(target, shop.paid).status == "paid"
    assert get_allowance(target, shop.product, "ann") == (5, 3, 2)
    assert place_hold(source, other).status == "active"
    for call in (
        lambda: place_hold(source, shop.product, 1, None, "eve"),
        lambda: release_hold(source, shop.hold),
        lambda: get_order(source, shop.paid),
        lambda: get_allowance(source, shop.product, "ann"),
        lambda: row(source, "select * from flashsale.preview_cancel_sale(%s)", shop.product),
        lambda: apply_payment(source, "pay", shop.paid),
    ):
        with refused("SA029"):
            call()


def test_the_sale_goes_on_where_the_slot_is(source, target, shop):
    move(source, target, 1)
    assert place_hold(target, shop.product, 2, "hold", "ann").replayed
    with refused("SA017"):
        place_hold(target, shop.product, 3, None, "ann")
    order = create_order(target, shop.hold)
    assert order.order_id > max(shop.pending, shop.paid)
    assert apply_payment(target, "pay 2", order.order_id).result == "applied"
    assert apply_payment(target, "pay 3", shop.pending).result == "applied"
    assert apply_payment(target, "pay", shop.paid).replayed
    assert create_in(target, 1, max_per_buyer=5, idempotency_key="create") == shop.product


def test_keys_that_are_in_use_at_the_target_are_no_obstacle(source, target, shop):
    there = create_in(target, 2, idempotency_key="create")
    hold = place_hold(target, there, 1, "hold")
    order = create_order(target, hold.hold_id, "order")
    apply_payment(target, "pay", order.order_id)
    move(source, target, 1)
    assert place_hold(target, there, 1, "hold").hold_id == hold.hold_id
    assert place_hold(target, shop.product, 2, "hold", "ann").hold_id == shop.hold
    assert apply_payment(target, "pay", shop.paid).replayed


def test_ids_are_not_given_out_again(source, target, shop):
    last = max(shop.pending, shop.paid)
    move(source, target, 1)
    assert create_order(target, shop.hold).order_id > last
    created = create_in(target, 1)
    assert created > shop.product
    move(target, source, 1)
    assert create_in(source, 1) > created


def test_an_early_webhook_finds_its_order_after_the_move(source, target, shop):
    early = early_order_id(source, shop.product)
    assert apply_payment(source, "first", early, "failed").result == "stored"
    assert apply_payment(source, "second", early).result == "stored"
    move(source, target, 1)
    order = create_order(target, shop.hold)
    assert (order.order_id, order.status) == (early, "paid")
    results = "select result from flashsale.payments where order_id = %s order by idempotency_key"
    assert rows(target, results, early) == [("applied",), ("applied",)]


def test_webhooks_keep_their_order_of_arrival(source, target, shop):
    """The target has drawn fewer numbers: a webhook that comes after the move is the last one."""
    early = early_order_id(source, shop.product)
    apply_payment(source, "first", early, "failed")
    apply_payment(source, "second", early)
    move(source, target, 1)
    apply_payment(target, "third", early, "failed")
    assert create_order(target, shop.hold).status == "paid"
    arrived = rows(target, "select idempotency_key from flashsale_data.payments order by arrival")
    assert arrived == [("1/pay",), ("1/first",), ("1/second",), ("1/third",)]


def test_arrivals_are_numbered_anew(source, target, shop):
    for number in range(5):
        apply_payment(source, f"p{number}", 401 + 4 * number)
    apply_payment(target, "there", 402)
    move(source, target, 1)
    highest = value(target, "select max(arrival) from flashsale_data.payments")
    assert highest == value(target, "select last_value from flashsale_data.arrivals")


def test_the_ledger_stays_and_adds_up(source, target, shop):
    total = ledger(source, shop.product)
    move(source, target, 1)
    assert (ledger(source, shop.product), ledger(target, shop.product)) == (0, total)
    kinds = (
        "select kind, available_delta from flashsale.read_events(0, 100) where kind like 'product_moved%%'"
    )
    assert rows(source, kinds) == [("product_moved_out", -total)]
    assert rows(target, kinds) == [("product_moved_in", total)]


@pytest.mark.parametrize("purge", [False, True])
def test_a_slot_comes_back(source, target, shop, purge):
    row(source, "select * from flashsale.change_price(%s, 110)", shop.product)
    move(source, target, 1)
    if purge:
        rows(source, "select flashsale.purge('0')")
    release_hold(target, shop.hold)
    apply_payment(target, "pay 2", shop.pending)
    row(target, "select * from flashsale.change_price(%s, 120)", shop.product)
    move(target, source, 1)
    assert (owned(source), owned(target)) == ([0, 1], [2, 3])
    assert get_product(source, shop.product).price == 120
    assert get_hold(source, shop.hold).status == "released"
    assert available(source, shop.product) == 8
    assert audit(source) == []
    rows(source, "select flashsale.purge('0')")


def test_a_slot_comes_back_before_it_was_cleared(source, target, shop):
    with exported(source, target, 1) as move_id:
        give_up(source, 1, move_id)
    own(target, 1, move_id)
    release_hold(target, shop.hold)
    rows(target, "select flashsale.purge('0')")
    move(target, source, 1)
    with refused("SA003"):
        get_hold(source, shop.hold)


def test_what_lapsed_is_swept_where_the_slot_is(source, target, shop):
    change_settings(source, hold_time="100 ms")
    hold = place_hold(source, shop.product, 1, None, "eve")
    wait_until_past(source, hold.expires_at)
    assert available(source, shop.product) == 6
    move(source, target, 1)
    assert available(target, shop.product) == 6
    assert get_hold(target, hold.hold_id).status == "expired"
    assert (expire_due(source), expire_due(target)) == (0, 1)


def test_an_empty_slot_moves(source, target):
    move(source, target, 0)
    assert (owned(source), owned(target)) == ([1], [0, 2, 3])
    assert create_in(target, 0) % 4 == 0


def test_what_a_slot_has_left_is_shown_until_it_is_cleared(source, target, shop):
    with exported(source, target, 1) as move_id:
        give_up(source, 1, move_id)
    assert slot_of(source, 1)[:4] == (1, False, 1, move_id)
    found = slot_of(target, 1)
    assert (found.owned, found.arriving_move_id, found.is_complete) == (False, move_id, True)
    own(target, 1, move_id)
    assert rows(source, "select * from flashsale.stock where product_id = %s", shop.product) == []
    assert rows(source, "select * from flashsale.terms where product_id = %s", shop.product) == []
    assert clear(source, 1) == 7
    assert clear(source, 1) == 0
    assert slot_of(source, 1).products == 0


def test_the_audit_passes_over_what_a_slot_has_left(source, target, shop):
    with exported(source, target, 1) as move_id:
        give_up(source, 1, move_id)
    assert audit(source) == []
    own(target, 1, move_id)


def test_only_a_slot_that_is_not_owned_is_cleared(source, shop):
    with refused("SA009"):
        clear(source, 1)


# --- what changes while the slot is copied ---


def test_changes_since_the_copy_go_along(source, target, shop, connect):
    other = connect(autocommit=False)
    with other.transaction():  # a savepoint: its rows have another transaction id
        late = place_hold(other, shop.product, 1, "late", "eve")
    with source.transaction():
        parts = export(source, 1)
        move_id = parts[-1].move_id
        receive(target, 1, parts)
        with connect() as caller:
            order = create_order(caller, shop.hold)
            release_hold(caller, place_hold(caller, shop.product, 1, None, "eve").hold_id)
            apply_payment(caller, "pay 2", order.order_id)
            born = create_in(caller, 1)
            stored = early_order_id(caller, shop.product)
            apply_payment(caller, "early", stored)
        other.commit()
        receive(target, 1, export_changes(source, 1, move_id))
        give_up(source, 1, move_id)
    own(target, 1, move_id)
    clear(source, 1)
    assert get_order(target, order.order_id).status == "paid"
    assert get_hold(target, late.hold_id).status == "active"
    assert get_hold(target, shop.hold).status == "ordered"
    assert place_hold(target, born).status == "active"
    assert create_order(target, late.hold_id).status == "paid"


def test_a_limit_group_of_two_slots_keeps_them_apart(source, target, shop):
    change_terms(source, shop.product, limit_group="shoes")
    there = create_in(target, 2, limit_group="shoes")
    with source.transaction(force_rollback=True):
        parts = export(source, 1)
        receive(target, 1, parts)
        with refused("SA009"):
            load(target, 1, parts[-1].move_id)
    change_terms(target, there, limit_group="socks")
    move(source, target, 1)
    assert get_allowance(target, shop.product, "ann").taken == 3


def test_rejected_webhooks_go_along(source, target, shop):
    reject = "select flashsale.record_rejected_webhook(%s, '{}', 'malformed_json', 'd', null, %s, null)"
    value(source, reject, "of the slot", shop.pending)
    value(source, reject, "of another", shop.pending - 1)
    value(source, reject, "of no order", None)
    move(source, target, 1)
    shown = "select webhook_id from flashsale.rejected_webhooks order by 1"
    assert rows(source, shown) == [("of another",), ("of no order",)]
    assert rows(target, shown) == [("of the slot",)]


# --- interruptions ---


def test_a_move_that_is_broken_off_before_the_slot_is_given_up_changes_nothing(source, target, shop):
    with pytest.raises(ZeroDivisionError), exported(source, target, 1):
        raise ZeroDivisionError
    assert (owned(source), owned(target)) == ([0, 1], [2, 3])
    assert place_hold(source, shop.product, 1, "after", "eve").status == "active"
    move(source, target, 1)
    assert place_hold(target, shop.product, 1, "after", "eve").replayed


def test_what_was_received_is_enough_once_the_slot_is_given_up(source, target, shop, connect):
    with target.transaction(force_rollback=True):  # the transaction of step 3 is lost
        load(target, 1, "00000000-0000-0000-0000-000000000000")
    with exported(source, target, 1) as move_id:
        with target.transaction(force_rollback=True):
            assert load(target, 1, move_id) > 0
        give_up(source, 1, move_id)
    own(target, 1, slot_of(source, 1).departed_move_id)
    assert place_hold(target, shop.product, 2, "hold", "ann").replayed


def test_parts_are_loaded_in_the_transaction_that_owns(source, target, shop):
    with source.transaction(), target.transaction():
        parts = export(source, 1)
        move_id = parts[-1].move_id
        receive(target, 1, parts)
        assert load(target, 1, move_id) > 0
        receive(target, 1, export_changes(source, 1, move_id))
        load(target, 1, move_id)
        give_up(source, 1, move_id)
        own(target, 1, move_id)
    clear(source, 1)
    assert get_hold(target, shop.hold).status == "active"


def test_what_is_loaded_and_not_owned_is_not_sold(source, target, shop):
    with pytest.raises(ZeroDivisionError), exported(source, target, 1) as move_id:
        load(target, 1, move_id)  # committed by itself
        raise ZeroDivisionError
    with refused("SA029"):
        place_hold(target, shop.product, 1, None, "eve")
    with refused("SA029"):
        get_hold(target, shop.hold)
    move(source, target, 1)
    assert get_hold(target, shop.hold).status == "active"


def test_each_step_can_be_repeated(source, target, shop):
    with source.transaction():
        parts = export(source, 1)
        move_id = parts[-1].move_id
        receive(target, 1, parts)
        receive(target, 1, parts)
        changes = export_changes(source, 1, move_id)
        receive(target, 1, changes)
        receive(target, 1, changes)
        give_up(source, 1, move_id)
    own(target, 1, move_id)
    with refused("SA009"):
        own(target, 1, move_id)
    assert get_hold(target, shop.hold).status == "active"


def test_only_what_is_complete_is_owned(source, target, shop):
    with source.transaction(force_rollback=True):
        parts = export(source, 1)
        move_id = parts[-1].move_id
        receive(target, 1, parts)
        changes = export_changes(source, 1, move_id)
        with refused("SA009"):
            own(target, 1, move_id)
        with refused("SA009"):
            receive(target, 1, changes[1:])
        with refused("SA009"):
            own(target, 1, move_id)


def test_only_the_move_that_was_given_up_is_owned(source, target, shop):
    with exported(source, target, 1) as move_id:
        give_up(source, 1, move_id)
    with refused("SA009"):
        own(target, 1, "00000000-0000-0000-0000-000000000000")
    assert owned(target) == [2, 3]


def test_a_slot_is_given_up_by_the_transaction_that_has_exported_it(source, target, shop):
    with exported(source, target, 1) as move_id:
        pass
    with refused("SA009"):
        give_up(source, 1, move_id)
    with refused("SA009"):
        export_changes(source, 1, move_id)
    with refused("SA009"), source.transaction():
        export(source, 1)
        give_up(source, 1, move_id)
    assert owned(source) == [0, 1]


def test_a_slot_that_is_owned_does_not_arrive(source, target, shop):
    with source.transaction(force_rollback=True):
        parts = export(source, 1)
        with refused("SA009"):
            receive(source, 1, parts)


@pytest.mark.parametrize(("slot", "state"), [(2, "SA029"), (4, "SA009"), (-1, "SA009"), (None, "SA009")])
def test_a_slot_that_is_not_here_is_not_exported(source, slot, state):
    with refused(state):
        export(source, slot)


def test_a_shop_of_one_slot_moves_none(db):
    with refused("SA009"):
        export(db, 0)


def test_test_products_are_forgotten_first(source, target):
    create_product(source, is_test=True)
    create_product(source, is_test=True)
    with refused("SA009"):
        export(source, 1)
    rows(source, "select * from flashsale.forget_tests()")
    move(source, target, 1)


def test_a_move_is_at_read_committed(source, shop, connect):
    conn = connect(autocommit=False)
    conn.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
    with refused("SA009"):
        export(conn, 1)


def test_a_full_page_of_parts(source, target, shop):
    """More rows than one part has."""
    value(source, "select (flashsale.adjust_stock(%s, 21000)).product_id", shop.product)
    row(source, "select * from flashsale.change_terms(array[%s], p_max_per_buyer => 0)", shop.product)
    for _ in range(21):
        place_holds(source, *[(shop.product, 1)] * 1000)
    move(source, target, 1)
    count = "select count(*) from flashsale_data.holds"
    assert (value(source, count), value(target, count)) == (0, 21004)


# --- what the audit finds ---


def test_the_audit_finds_a_product_of_a_slot_that_is_not_owned(source, shop, broken):
    source.execute("update flashsale_data.shard set owned = '{0}'")
    found = rows(source, "select * from flashsale.audit()")
    assert ("slot_owned", f"product {shop.product} is sold here, its slot is not owned") in found
    assert "moved_out" in audit(source)


def test_the_audit_finds_ids_of_another_slot(source, shop, broken):
    source.execute(
        "insert into flashsale_data.holds"
        " (hold_id, product_id, qty, status, placed_at, expires_at, currency, price)"
        " values (4, %s, 1, 'released', now(), now(), 'USD', 1)",
        (shop.product,),
    )
    assert "slot_of_ids" in audit(source)
