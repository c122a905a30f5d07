"""Constraints: rows that the tables refuse, also from a superuser or a defective function."""

import psycopg
import pytest
from psycopg import errors

from tests.support import ROOT
from tests.support.guards import replaced
from tests.support.sale_steps import create_product, one, order, pay, place_hold


class Shop:
    """The rows that the tests try to corrupt: 5 units, a hold of 2, a paid order of 1, a pending one of 1."""

    def __init__(self, db):
        self.product = create_product(db, stock=5)
        self.hold = place_hold(db, self.product, 2, "hold key")
        self.paid = order(db, self.product)
        self.pending = order(db, self.product)
        pay(db, self.paid, key="paying")
        pay(db, 1_000_000, key="stored")
        db.execute("select flashsale.record_refund('re_1', 'paying', 1, 'done')")
        db.execute("select flashsale.record_rejected_webhook('msg', '{}', 'code', 'detail')")
        db.execute("select flashsale.adjust_stock(%s, 1, 'delivery')", (self.product,))
        db.execute("select flashsale.adjust_stock(%s, -1)", (self.product,))
        self.limited = create_product(db, max_per_buyer=2)
        db.execute("select flashsale.place_hold(%s, 1, null, 'ann')", (self.limited,))
        self.used_hold = one(db, "select hold_id from flashsale_data.orders where order_id = %s", self.paid)


@pytest.fixture
def shop(db):
    return Shop(db)


COLUMNS = (
    "order_id, hold_id, product_id, qty, amount, currency, status, cancel_reason, created_at, payment_due_at,"
    " idempotency_key"
)


def another_order(**values):
    """A copy of the paid order with other values in some columns."""
    selected = ", ".join(values.get(column, column) for column in COLUMNS.split(", "))
    return (
        f"insert into flashsale_data.orders ({COLUMNS})"
        f" select {selected} from flashsale_data.orders where order_id = {{paid}}"
    )


SET_ORDER = "update flashsale_data.orders set {} where order_id = {{pending}}"
SET_HOLD = "update flashsale_data.holds set {} where hold_id = {{hold}}"
SET_STOCK = "update flashsale_data.stock set {}"
SET_PAYMENT = "update flashsale_data.payments set {} where idempotency_key = 'paying'"
SET_STORED = "update flashsale_data.payments set {} where idempotency_key = 'stored'"
SET_PRODUCT = "update flashsale_data.products set {}"
SET_REFUND = "update flashsale_data.refunds set {}"
SET_REJECTED = "update flashsale_data.rejected_webhooks set {}"
TWICE = "insert into flashsale_data.{} select {} from generate_series(1, 2)"
SET_SETTINGS = "update flashsale_data.settings set {}"

REFUSED = [
    # stock
    ("stock_never_oversold", SET_STOCK.format("held = held + 2")),
    ("stock_never_oversold", SET_STOCK.format("awaiting = awaiting + 2")),
    ("stock_never_oversold", SET_STOCK.format("paid = paid + 2")),
    ("stock_never_oversold", SET_STOCK.format("total_stock = 3")),
    ("stock_never_oversold", SET_STOCK.format("held = 2147483647, paid = 2147483647")),
    ("stock_counters_not_negative", SET_STOCK.format("held = -1")),
    ("stock_counters_not_negative", SET_STOCK.format("awaiting = -1")),
    ("stock_counters_not_negative", SET_STOCK.format("paid = -1")),
    ("stock_counters_not_negative", SET_STOCK.format("total_stock = -1, held = 0, awaiting = 0, paid = 0")),
    ("stock_version_key", "insert into flashsale_data.stock select * from flashsale_data.stock"),
    ("stock_product_fkey", "insert into flashsale_data.stock (product_id, total_stock) values (99, 1)"),
    ("lapses_not_negative", "update flashsale_data.lapses set held = -1"),
    ("lapses_not_negative", "update flashsale_data.lapses set awaiting = -1"),
    ("lapses_pkey", "insert into flashsale_data.lapses select * from flashsale_data.lapses"),
    ("lapses_product_fkey", "update flashsale_data.lapses set product_id = 99 where product_id = {limited}"),
    # products
    ("products_name", SET_PRODUCT.format("name = ''")),
    ("products_name", SET_PRODUCT.format("name = repeat('x', 201)")),
    ("products_price", SET_PRODUCT.format("price = -0.01")),
    ("products_price", SET_PRODUCT.format("price = 'NaN'")),
    ("products_price", SET_PRODUCT.format("price = 'Infinity'")),
    ("products_currency", SET_PRODUCT.format("currency = 'usd'")),
    ("products_starts_at", SET_PRODUCT.format("starts_at = 'infinity', has_terms = true")),
    ("products_ends_at", SET_PRODUCT.format("ends_at = '-infinity', has_terms = true")),
    ("products_ends_after_start",
     SET_PRODUCT.format("starts_at = '2000-01-01', ends_at = '2000-01-01', has_terms = true")),
    ("products_max_per_buyer", SET_PRODUCT.format("max_per_buyer = 0, has_terms = true")),
    ("products_max_per_hold", SET_PRODUCT.format("max_per_hold = 0, has_terms = true")),
    ("products_limit_group", SET_PRODUCT.format("limit_group = '', has_terms = true")),
    ("products_hold_time", SET_PRODUCT.format("hold_time = '0'")),
    ("products_payment_window", SET_PRODUCT.format("payment_window = '31 days'")),
    ("products_has_terms", SET_PRODUCT.format("has_terms = not has_terms")),
    ("products_has_terms", SET_PRODUCT.format("paused = true, has_terms = false")),
    ("stock_product_fkey", "delete from flashsale_data.products"),
    # holds
    ("holds_pkey", "insert into flashsale_data.holds select * from flashsale_data.holds"),
    ("holds_idempotency_key", "insert into flashsale_data.holds select 1, product_id, qty, status, placed_at,"
     " expires_at, idempotency_key, currency, price from flashsale_data.holds where hold_id = {hold}"),
    ("holds_hold_id", SET_HOLD.format("hold_id = 0")),
    ("holds_hold_id", SET_HOLD.format("hold_id = 9007199254740992")),
    ("holds_qty", SET_HOLD.format("qty = 0")),
    ("holds_status", SET_HOLD.format("status = 'lost'")),
    ("holds_product_fkey", SET_HOLD.format("product_id = 99")),
    ("claims_pkey", "insert into flashsale_data.claims select * from flashsale_data.claims"),
    ("claims_qty", "update flashsale_data.claims set qty = 0"),
    ("orders_hold_fkey", "delete from flashsale_data.holds where hold_id = {used_hold}"),
    # orders
    ("orders_pkey", another_order(hold_id="{hold}")),
    ("orders_hold_key", another_order(order_id="99")),
    ("orders_hold_fkey", another_order(order_id="99", hold_id="4711")),
    ("orders_product_fkey", another_order(order_id="99", hold_id="{hold}", product_id="99")),
    ("orders_qty", SET_ORDER.format("qty = 0")),
    ("orders_amount", SET_ORDER.format("amount = -1")),
    ("orders_status", SET_ORDER.format("status = 'shipped'")),
    ("orders_cancel_reason", SET_ORDER.format("status = 'cancelled', cancel_reason = 'changed my mind'")),
    ("orders_reason_if_cancelled", SET_ORDER.format("status = 'cancelled'")),
    ("orders_reason_if_cancelled", SET_ORDER.format("cancel_reason = 'payment_failed'")),
    ("orders_idempotency_key", "update flashsale_data.orders set idempotency_key = 'same'"),
    # payments
    ("payments_pkey", SET_PAYMENT.format("idempotency_key = 'stored'")),
    ("payments_one_pays", SET_STORED.format("result = 'applied', order_id = {paid}")),
    ("payments_status", SET_PAYMENT.format("status = 'perhaps'")),
    ("payments_result", SET_PAYMENT.format("result = 'ignored'")),
    ("payments_order_status", SET_PAYMENT.format("order_status = 'shipped'")),
    ("payments_refund_reason", SET_PAYMENT.format("refund_reason = 'whim', refund_state = 'due'")),
    ("payments_refund_state", SET_PAYMENT.format("refund_reason = 'sold_out', refund_state = 'perhaps'")),
    ("payments_state_has_a_reason", SET_PAYMENT.format("refund_state = 'due'")),
    ("payments_refunded", SET_PAYMENT.format("refunded = -1")),
    ("refunds_pkey", "insert into flashsale_data.refunds select * from flashsale_data.refunds"),
    ("refunds_amount", SET_REFUND.format("amount = 0")),
    ("refunds_kind", SET_REFUND.format("kind = 'gift'")),
    ("refunds_status", SET_REFUND.format("status = 'perhaps'")),
    ("refunds_requested", SET_REFUND.format("status = 'requested', recorded_at = null")),
    ("refunds_recorded", SET_REFUND.format("recorded_at = null")),
    ("refunds_one_request",
     "insert into flashsale_data.refunds (refund_key, payment_key, amount, kind, status, lease_ends_at)"
     " values ('rf_1', 'paying', 1, 'refund', 'requested', now()),"
     " ('rf_2', 'paying', 1, 'refund', 'requested', now())"),
    ("payments_stored_has_a_deadline", SET_STORED.format("wait_ends_at = null")),
    ("payments_stored_has_no_order", SET_STORED.format("order_status = 'paid'")),
    ("inbox_stored", "update flashsale_data.inbox set stored = -1"),
    ("inbox_pkey", "insert into flashsale_data.inbox default values"),
    ("inbox_one_row", "insert into flashsale_data.inbox (singleton) values (false)"),
    # rejected webhooks
    ("rejected_webhooks_pkey",
     "insert into flashsale_data.rejected_webhooks select * from flashsale_data.rejected_webhooks"),
    ("rejected_webhooks_webhook_id", SET_REJECTED.format("webhook_id = ''")),
    ("rejected_webhooks_webhook_id", SET_REJECTED.format("webhook_id = repeat('x', 256)")),
    ("rejected_webhooks_body", SET_REJECTED.format("body = repeat('x', 262145)::bytea, body_size = 262145")),
    ("rejected_webhooks_body", SET_REJECTED.format("body_size = 1")),
    ("rejected_webhooks_code", SET_REJECTED.format("code = ''")),
    ("rejected_webhooks_detail", SET_REJECTED.format("detail = repeat('x', 1001)")),
    ("rejected_webhooks_deliveries", SET_REJECTED.format("deliveries = 0")),
    ("rejected_webhooks_seen", SET_REJECTED.format("last_seen_at = '-infinity'")),
    ("rejection_counter_pkey", "insert into flashsale_data.rejection_counter default values"),
    ("rejection_counter_one_row", "insert into flashsale_data.rejection_counter (singleton) values (false)"),
    # ledger
    ("events_kind", "update flashsale_data.events set kind = 'miracle'"),
    ("events_pkey", "insert into flashsale_data.events select * from flashsale_data.events"),
    # operations
    ("operations_pkey", "insert into flashsale_data.operations select * from flashsale_data.operations"),
    ("operations_idempotency_key", "update flashsale_data.operations set idempotency_key = ''"),
    ("operations_product_fkey", "update flashsale_data.operations set product_id = 99"),
    (
        "awaited_payments_pkey",
        "insert into flashsale_data.awaited_payments values ('p', now()), ('p', now())",
    ),
    ("purge_state_one_row", "insert into flashsale_data.purge_state values (false, 1, 1)"),
    # shards
    ("shard_pkey", "insert into flashsale_data.shard default values"),
    ("shard_one_row", "insert into flashsale_data.shard (singleton) values (false)"),
    ("shard_slots", "update flashsale_data.shard set slots = 12, owned = '{{}}'"),
    ("shard_slots", "update flashsale_data.shard set slots = 512, owned = '{{}}'"),
    ("shard_owned", "update flashsale_data.shard set slots = 4, owned = '{{4}}'"),
    ("shard_owned", "update flashsale_data.shard set slots = 4, owned = '{{-1}}'"),
    ("shard_owned", "update flashsale_data.shard set slots = 4, owned = '{{null}}'"),
    ("shard_of_one_slot", "update flashsale_data.shard set owned = '{{}}'"),
    ("departed_slots_pkey", TWICE.format("departed_slots", "1, gen_random_uuid(), '1', '1', null")),
    ("arriving_rows_pkey", TWICE.format("arriving_rows", "1, gen_random_uuid(), 'stock', 0, '{{}}'")),
    # settings and state
    ("settings_pkey", "insert into flashsale_data.settings default values"),
    ("settings_one_row", "insert into flashsale_data.settings (singleton) values (false)"),
    ("settings_hold_time", SET_SETTINGS.format("hold_time = '0'")),
    ("settings_hold_time", SET_SETTINGS.format("hold_time = '2 days'")),
    ("settings_payment_window", SET_SETTINGS.format("payment_window = '31 days'")),
    ("settings_inbox_limit", SET_SETTINGS.format("inbox_limit = -1")),
    ("settings_inbox_keep", SET_SETTINGS.format("inbox_keep = '0'")),
    ("settings_rejected_limit", SET_SETTINGS.format("rejected_limit = -1")),
    ("settings_extension_time", SET_SETTINGS.format("extension_time = '0'")),
    ("settings_max_extensions", SET_SETTINGS.format("max_extensions = -1")),
    ("schema_state_one_row", "update flashsale_data.schema_state set singleton = false"),
    ("scheduler_one_row", "update flashsale_data.scheduler set singleton = false"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("guard", "statement"), REFUSED, ids=[f"{number}-{guard}" for number, (guard, _) in enumerate(REFUSED)]
)
def test_constraint_refuses_a_superuser(db, shop, guard, statement):
    with pytest.raises(errors.IntegrityError) as raised:
        db.execute(statement.format(**vars(shop)))
    assert raised.value.diag.constraint_name == guard


def test_every_constraint_is_tried_above(db):
    """All but the primary keys of products, of purge()'s upsert, and of the tables with one row."""
    guards = {
        name
        for (name,) in db.execute(
            "select conname from pg_constraint where connamespace = 'flashsale_data'::regnamespace"
            " and contype <> 'n'"  # NOT NULL: since PostgreSQL 18 a constraint; tried below
            " union select relname from pg_class c join pg_index i on i.indexrelid = c.oid and i.indisunique"
            " where relnamespace = 'flashsale_data'::regnamespace"
        )
    }
    untried = {
        "products_pkey", "ledger_carried_pkey", "purge_state_pkey", "schema_state_pkey", "scheduler_pkey",
    }  # fmt: skip
    assert guards - {guard for guard, _ in REFUSED} == untried


@pytest.mark.parametrize(
    "column",
    [
        "stock.total_stock", "stock.held", "stock.awaiting", "stock.paid", "stock.lapsed_through",
        "holds.product_id", "holds.qty", "holds.status", "holds.expires_at", "holds.price", "holds.currency",
        "orders.hold_id", "orders.product_id", "orders.qty", "orders.amount", "orders.status",
        "orders.payment_due_at",
        "payments.order_id", "payments.status", "payments.result", "payments.payload",
        "rejected_webhooks.body", "rejected_webhooks.code", "rejected_webhooks.deliveries",
        "products.price", "products.currency", "products.paused", "products.listed", "products.has_terms",
        "stock.gated", "holds.extensions", "claims.scope", "claims.buyer", "claims.ends_at", "claims.qty",
        "events.kind", "events.available_delta",
    ],
)  # fmt: skip
def test_columns_of_every_invariant_are_not_null(db, shop, column):
    table, name = column.split(".")
    with pytest.raises(errors.NotNullViolation):
        db.execute(f"update flashsale_data.{table} set {name} = null")


def test_constraints_stop_functions_too(db, shop):
    """With the guard of place_holds() removed, the constraint refuses to sell more units than exist."""
    with db.transaction(force_rollback=True):
        for text in replaced(ROOT, "units-left", ["when true then null"]).values():
            db.execute(text)
        with pytest.raises(psycopg.errors.CheckViolation) as raised:
            place_hold(db, shop.product, 3)
    assert raised.value.diag.constraint_name == "stock_never_oversold"
