"""audit(): no row if every invariant holds, and a row for each corruption."""

import re
from concurrent.futures import ThreadPoolExecutor
from threading import Event

import psycopg
import pytest

from tests.support.sale_steps import (
    audit,
    available,
    create_order,
    create_product,
    expire_due,
    hold_status,
    make_short,
    one,
    order,
    pay,
    place_hold,
    place_many,
    wait_until_lapsed,
)


class Shop:
    """A row of every kind, for the corruptions."""

    def __init__(self, db):
        db.execute("select flashsale.change_settings('1 hour', '1 hour')")
        self.product, self.other = create_product(db, stock=20), create_product(db, stock=5)
        self.held = place_hold(db, self.product, 2)
        self.released = place_hold(db, self.product)
        db.execute("select flashsale.release_hold(%s)", (self.released,))
        self.pending = order(db, self.product, 3)
        self.paid, self.also_paid, self.failed = (order(db, self.product) for _ in range(3))
        pay(db, self.paid, key="first")
        pay(db, self.also_paid, key="second")
        pay(db, self.failed, "failed")
        pay(db, 1_000_000, key="stored")
        pay(db, self.paid, key="twice")
        pay(db, 1_000_001, key="given up")
        db.execute(
            "update flashsale_data.payments set received_at = received_at - interval '2 days',"
            " wait_ends_at = wait_ends_at - interval '2 days' where idempotency_key = 'given up'"
        )
        expire_due(db)
        self.limited = create_product(db, stock=5, max_per_buyer=2, starts_at="2000-01-01 00:00Z")
        self.claimed = place_hold(db, self.limited, 2, buyer="ann")


@pytest.fixture
def shop(db):
    made = Shop(db)
    assert audit(db) == []
    return made


# Each breaks one invariant and keeps the others; {names} are those of Shop. Guards of the tables are
# taken out first where they stand in the way: audit() must not rely on them.
CORRUPTIONS = {
    "one_stock_row": [
        "insert into flashsale_data.products (name, price, currency, created_at)"
        " values ('Ghost', 1, 'USD', now())"
    ],
    "never_oversold": [
        "alter table flashsale_data.stock drop constraint stock_never_oversold",
        "update flashsale_data.stock set total_stock = 6 where product_id = {product}",
        "insert into flashsale_data.events (kind, at, product_id, available_delta)"
        " values ('stock_adjusted', now(), {product}, 6 - 20)",
    ],
    "held_counter": [
        "update flashsale_data.stock set held = held - 1 where product_id = {product}",
        "insert into flashsale_data.events (kind, at, product_id, available_delta)"
        " values ('stock_adjusted', now(), {product}, 1)",
    ],
    "awaiting_counter": [
        "update flashsale_data.stock set awaiting = awaiting + 1 where product_id = {product}",
        "insert into flashsale_data.events (kind, at, product_id, available_delta)"
        " values ('stock_adjusted', now(), {product}, -1)",
    ],
    "paid_counter": [
        "update flashsale_data.stock set paid = paid - 1 where product_id = {product}",
        "insert into flashsale_data.events (kind, at, product_id, available_delta)"
        " values ('stock_adjusted', now(), {product}, 1)",
    ],
    "lapses": ["update flashsale_data.lapses set held = held + 1 where held > 0"],
    "ledger": ["update flashsale_data.events set available_delta = 19 where available_delta = 20"],
    "hold_has_one_order": [
        "alter table flashsale_data.orders drop constraint orders_hold_fkey",
        "update flashsale_data.orders set hold_id = 4711 where order_id = {failed}",
    ],
    "order_is_its_hold": ["update flashsale_data.orders set qty = 2 where order_id = {failed}"],
    "order_amount": ["update flashsale_data.orders set amount = amount + 1 where order_id = {failed}"],
    "event_has_its_product": [
        "insert into flashsale_data.events (kind, at, product_id) values"
        " ('stock_adjusted', clock_timestamp(), 1000)",
    ],
    "price_in_ledger": [
        "insert into flashsale_data.events (kind, at, product_id, data)"
        " values ('price_changed', now(), {product}, '{{\"price\": \"89.00\"}}')"
    ],
    "claims_add_up": ["update flashsale_data.claims set qty = 1"],
    "limit_kept": [
        "update flashsale_data.events set data = data || '{{\"max_per_buyer\": 1}}'"
        " where kind = 'terms_changed'"
    ],
    "held_in_time": [
        'update flashsale_data.events set data = data || \'{{"starts_at": "2099-01-01 00:00Z"}}\''
        " where kind = 'terms_changed'"
    ],
    "hold_state_in_ledger": ["update flashsale_data.holds set status = 'expired' where hold_id = {released}"],
    "order_state_in_ledger": [
        "insert into flashsale_data.events (kind, at, product_id, order_id)"
        " values ('order_created', now(), {product}, {failed})"
    ],
    "paid_by_one_payment": [
        "drop index flashsale_data.payments_one_pays",
        "update flashsale_data.payments set order_id = {paid} where idempotency_key = 'second'",
    ],
    "money_adds_up": [
        "update flashsale_data.payments set refund_state = null, refund_reason = null, result = 'no_change'"
        " where idempotency_key = 'twice'"
    ],
    "refunds_add_up": [
        "insert into flashsale_data.refunds (refund_key, payment_key, amount, kind, status, recorded_at)"
        " values ('re_1', 'twice', 1, 'refund', 'done', now())"
    ],
    "refund_missed_its_payment": [
        "insert into flashsale_data.refunds (refund_key, payment_key, amount, kind, status, recorded_at)"
        " values ('re_1', 'foreign', 1, 'refund', 'done', now())"
    ],
    "paid_its_amount": [
        "update flashsale_data.payments set amount = case idempotency_key when 'first' then 98 else 100 end"
        " where idempotency_key in ('first', 'second')"
    ],
    "refund_has_an_amount": [
        "insert into flashsale_data.payments"
        " (idempotency_key, order_id, status, payload, received_at, result, order_status, refund_state,"
        " refund_reason) values"
        " ('of a purged order', 999, 'success', '{{}}', now(), 'refund_due', 'cancelled', 'due', 'sold_out')"
    ],
    "inbox_counter": ["update flashsale_data.inbox set stored = stored + 1"],
    "webhook_missed_its_order": [
        "update flashsale_data.payments set order_id = {pending} where idempotency_key = 'stored'"
    ],
}


@pytest.mark.parametrize("check", CORRUPTIONS)
def test_a_check_fires_alone_when_its_invariant_is_broken(db, shop, check):
    with db.transaction(force_rollback=True):
        for statement in CORRUPTIONS[check]:
            changed = db.execute(statement.format(**vars(shop))).rowcount
            assert changed != 0, statement
        assert {name for name, _ in audit(db)} == {check}
    assert audit(db) == []


def test_every_check_is_tried_above(db):
    body = one(db, "select prosrc from pg_proc where oid = 'flashsale.audit()'::regprocedure")
    checks = set(re.findall(r"select '(\w+)'", body))
    # Those of slots are tried in tests/shards/sql.
    assert checks == {*CORRUPTIONS, "moved_out", "slot_of_ids", "slot_owned"}


@pytest.mark.parametrize(
    ("what", "statements", "fires"),
    [
        (
            "a lost unit",
            ["update flashsale_data.stock set held = held + 1 where product_id = {other}"],
            {"held_counter", "ledger"},
        ),
        (
            "a wrong product restocked",
            [
                "update flashsale_data.stock set awaiting = awaiting - 3 where product_id = {product}",
                "update flashsale_data.stock set total_stock = total_stock + 3 where product_id = {other}",
            ],
            {"awaiting_counter", "ledger"},
        ),
        (
            "a second stock row",
            [
                "insert into flashsale_data.stock (product_id, version, total_stock)"
                " values ({other}, 99, 5)"
            ],
            {"one_stock_row"},
        ),
        ("no stock row", ["delete from flashsale_data.stock where product_id = {other}"], {"one_stock_row"}),
        (
            "a lapse of no hold",
            [
                "insert into flashsale_data.lapses (product_id, lapses_at, awaiting)"
                " values ({other}, now() + interval '1 hour', 2)"
            ],
            {"lapses"},
        ),
        ("a lapse forgotten", ["delete from flashsale_data.lapses where awaiting > 0"], {"lapses"}),
        (
            "an ordered hold without its order",
            ["delete from flashsale_data.orders where order_id = {failed}"],
            {"hold_has_one_order"},
        ),
        (
            "a used hold opened again",
            [
                "update flashsale_data.holds h set status = 'released' from flashsale_data.orders o"
                " where o.hold_id = h.hold_id and o.order_id = {failed}"
            ],
            {"hold_has_one_order", "hold_state_in_ledger"},
        ),
        (
            "a paid order without a payment",
            ["delete from flashsale_data.payments where idempotency_key = 'second'"],
            {"paid_by_one_payment", "money_adds_up"},
        ),
        (
            "a payment lost",
            ["delete from flashsale_data.payments where idempotency_key = 'twice'"],
            set(),  # no other row refers to it, so that the loss cannot be detected
        ),
        (
            "a cancelled order revived by hand",
            [
                "update flashsale_data.orders set status = 'paid', cancel_reason = null"
                " where order_id = {failed}",
            ],
            {"paid_counter", "order_state_in_ledger", "paid_by_one_payment", "money_adds_up"},
        ),
        ("an event erased", ["delete from flashsale_data.events where hold_id = {held}"], {"ledger"}),
        ("an event twice", [
            "insert into flashsale_data.events (kind, at, product_id, hold_id, available_delta)"
            " select kind, at, product_id, hold_id, available_delta"
            " from flashsale_data.events where hold_id = {held}"
        ], {"ledger"}),
        ("a claim forgotten", ["delete from flashsale_data.claims"], {"claims_add_up"}),
        (
            "a claim that ends too early",
            ["update flashsale_data.claims set ends_at = ends_at - interval '1 second'"],
            {"claims_add_up"},
        ),
        (
            "a claim of nothing",
            [
                "insert into flashsale_data.claims (hold_id, scope, buyer, ends_at, product_id, qty)"
                " values ({released}, 'product 1', 'ann', now() + interval '1 hour', {product}, 1)"
            ],
            {"claims_add_up"},
        ),
        (
            "a pause that was overlooked",
            [
                "update flashsale_data.events set data = data || '{{\"paused\": true}}'"
                " where kind = 'terms_changed'"
            ],
            {"held_in_time"},
        ),
        (
            "a cancelled sale that was overlooked",
            [
                "update flashsale_data.events"
                " set kind = 'sale_cancelled', data = data || '{{\"cancelled\": true}}'"
                " where kind = 'terms_changed'"
            ],
            {"held_in_time"},
        ),
        (
            "a refund that waits for a payment that came",
            [
                "insert into flashsale_data.awaited_payments values ('twice', now())",
                "insert into flashsale_data.refunds"
                " (refund_key, payment_key, amount, kind, status, recorded_at)"
                " values ('re_1', 'twice', 1, 'refund', 'done', now())",
            ],
            {"refunds_add_up", "refund_missed_its_payment"},
        ),
        (
            "a webhook swallowed",
            ["delete from flashsale_data.payments where result = 'stored'"],
            {"inbox_counter"},
        ),
    ],
    ids=lambda value: value.replace(" ", "-") if isinstance(value, str) else "",
)  # fmt: skip
def test_a_corruption_is_reported_by_the_checks_it_concerns(db, shop, what, statements, fires):
    with db.transaction(force_rollback=True):
        for statement in statements:
            assert db.execute(statement.format(**vars(shop))).rowcount != 0, statement
        assert {name for name, _ in audit(db)} == fires


def test_a_detail_names_the_wrong_row(db, shop):
    with db.transaction(force_rollback=True):
        db.execute("update flashsale_data.holds set status = 'expired' where hold_id = %s", (shop.released,))
        assert audit(db) == [
            ("hold_state_in_ledger", f"hold {shop.released} is expired, its last event is hold_released")
        ]


def test_each_wrong_row_is_reported(db, shop):
    with db.transaction(force_rollback=True):
        db.execute("update flashsale_data.stock set paid = paid + 1")
        assert [name for name, _ in audit(db) if name == "paid_counter"] == ["paid_counter"] * 3


def test_an_empty_database_is_healthy(db):
    assert audit(db) == []


def test_lapsed_rows_that_are_not_swept_pass_the_audit(db):
    product = create_product(db)
    make_short(db)
    hold = place_hold(db, product, 2)
    order(db, product, 3)
    wait_until_lapsed(db)
    assert hold_status(db, hold) == "active"
    assert audit(db) == []
    place_hold(db, product, 10)  # takes the lapsed units, and records nothing
    assert hold_status(db, hold) == "active"
    assert audit(db) == []
    expire_due(db, 1)
    assert audit(db) == []
    wait_until_lapsed(db)
    assert available(db, product) == 10
    assert audit(db) == []


def test_a_hold_and_a_due_payment_may_lapse_at_one_instant(db):
    product = create_product(db)
    db.execute("select flashsale.change_settings('1 hour', '1 hour')")
    with db.transaction():
        create_order(db, place_hold(db, product))
        place_many(db, product, 5)
    assert audit(db) == []


def test_the_audit_passes_during_concurrent_writes(db, connect):
    """The audit is one statement and has one snapshot, in which counters and rows agree."""
    products = [create_product(db, stock=200) for _ in range(2)]
    db.execute("select flashsale.change_settings('100 milliseconds', '200 milliseconds')")
    stop = Event()

    def buyer(number):
        conn = connect()
        while not stop.is_set():
            try:
                hold = place_hold(conn, products[number % 2], 1 + number)
                if number == 0:
                    conn.execute("select flashsale.release_hold(%s)", (hold,))
                    continue
                made = create_order(conn, hold)
                pay(conn, made, ["success", "failed", "cancelled"][number - 1])
            except psycopg.Error as error:
                if error.sqlstate in ("SA002", "SA004"):
                    continue
                raise

    def sweeper():
        conn = connect()
        while not stop.is_set():
            expire_due(conn, 50)

    auditor = connect()
    with ThreadPoolExecutor(5) as pool:
        busy = [pool.submit(buyer, number) for number in range(4)] + [pool.submit(sweeper)]
        try:
            found = []
            while len(found) < 6 or one(auditor, "select count(*) from flashsale_data.events") < 500:
                found.append(audit(auditor))
        finally:
            stop.set()
        for work in busy:
            work.result()
    assert found == [[]] * len(found)
    assert audit(db) == []


def test_the_audit_changes_and_locks_nothing(db, connect):
    product = create_product(db)
    seller = connect(autocommit=False)
    place_hold(seller, product)
    auditor = connect()
    auditor.execute("set default_transaction_read_only = on")
    auditor.execute("set lock_timeout = '1ms'")
    assert audit(auditor) == []
