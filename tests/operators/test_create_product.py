"""create_product(): which arguments are accepted, and the product that it creates."""

import sys
import unicodedata
from decimal import Decimal

import psycopg
import pytest

from tests.support.sale_steps import audit, create_product, one, order, pay, place_hold, refused

CREATE = "select flashsale.create_product(%s, %s, %s, %s)"


def test_a_new_product_has_all_its_stock_available(db):
    product = one(db, "select flashsale.create_product('Sneaker', 50, 99)")
    row = db.execute("select * from flashsale.get_product(%s)", (product,)).fetchone()
    assert row[:6] == (product, "Sneaker", Decimal("99.00"), "USD", 50, 50)
    assert audit(db) == []


def test_it_is_the_first_entry_in_the_products_ledger(db):
    product = create_product(db, stock=50)
    ledger = "select kind, available_delta from flashsale_data.events where product_id = %s"
    assert db.execute(ledger, (product,)).fetchall() == [("product_created", 50)]


def test_each_product_gets_an_id_of_its_own(db):
    first, second = create_product(db), create_product(db)
    assert second > first


@pytest.mark.parametrize(
    ("price", "currency", "kept"),
    [
        ("99", "USD", "99.00"),
        ("99.000", "USD", "99.00"),
        ("0", "EUR", "0.00"),
        ("999999999999.99", "USD", "999999999999.99"),
        ("9800", "JPY", "9800"),
        ("1.5", "KWD", "1.500"),
        ("12.3456", "CLF", "12.3456"),
    ],
)
def test_a_price_is_kept_with_the_decimals_of_its_currency(db, price, currency, kept):
    product = create_product(db, price=price, currency=currency)
    assert str(one(db, "select price from flashsale.get_product(%s)", product)) == kept


@pytest.mark.parametrize(("price", "currency"), [("99.001", "USD"), ("0.5", "JPY"), ("1.2345", "KWD")])
def test_a_price_finer_than_its_currency_is_refused(db, price, currency):
    with refused("SA009"):
        create_product(db, price=price, currency=currency)


@pytest.mark.parametrize(
    "arguments",
    [
        (None, 1, "1", "USD"),
        ("", 1, "1", "USD"),
        ("   ", 1, "1", "USD"),
        ("x" * 201, 1, "1", "USD"),
        ("x", None, "1", "USD"),
        ("x", -1, "1", "USD"),
        ("x", 1, None, "USD"),
        ("x", 1, "-0.01", "USD"),
        ("x", 1, "1000000000000", "USD"),
        ("x", 1, "NaN", "USD"),
        ("x", 1, "Infinity", "USD"),
        ("x", 1, "-Infinity", "USD"),
        ("x", 1, "1", None),
        ("x", 1, "1", ""),
        ("x", 1, "1", "usd"),
        ("x", 1, "1", "US"),
        ("x", 1, "1", "USDX"),
        ("x", 1, "1", "USD\n"),
    ],
)
def test_invalid_arguments_are_refused_without_a_trace(db, arguments):
    with refused("SA009"):
        db.execute(CREATE, arguments)
    assert one(db, "select count(*) from flashsale_data.products") == 0
    assert one(db, "select count(*) from flashsale_data.events") == 0


def test_a_name_may_have_200_characters_of_any_script(db):
    product = create_product(db, name="靴" * 200)
    assert one(db, "select name from flashsale.get_product(%s)", product) == "靴" * 200


NUMBER_PREFIXES = "\u0600\u0601\u0602\u0603\u0604\u0605\u06dd\u070f\u0890\u0891\u08e2\U000110bd\U000110cd"
"""of category Cf, but with a glyph"""
BLANK = (
    "\u034f\u115f\u1160\u17b4\u17b5\u180b\u180c\u180d\u180f\u2065\u2800\u3164\ufe00\ufe0f\uffa0\ufff0"
    "\U000e0100\U000e01ef"
)
"""of other categories, but without a glyph"""


def invisible_characters():
    found = [chr(code) for code in range(1, sys.maxunicode + 1)]
    found = [char for char in found if unicodedata.category(char) in ("Cc", "Cf", "Zs", "Zl", "Zp")]
    return [*(char for char in found if char not in NUMBER_PREFIXES), *BLANK]


def test_a_name_that_shows_nothing_is_refused(db):
    for char in invisible_characters():
        with refused("SA009"):
            create_product(db, name=char)
    for name in (
        " \t\n",
        "\u00a0\u2003\u3000",
        "\u202e\u202c\u2066\u2069",
        "\u200b\ufeff\u200d",
        "\U000e0041\U000e007f",
    ):
        with refused("SA009"):
            create_product(db, name=name)
    assert one(db, "select count(*) from flashsale_data.products") == 0


@pytest.mark.parametrize(
    "name", [*"x.-0é靴🦶", *NUMBER_PREFIXES, "\u0301", "\u200f\u05e0\u05e2\u05dc", "👩\u200d🚀", "\u00a0x"]
)
def test_a_name_that_shows_something_is_kept_as_it_is(db, name):
    product = create_product(db, name=name)
    assert one(db, "select name from flashsale.get_product(%s)", product) == name


def test_a_product_without_stock_is_sold_out(db):
    product = create_product(db, stock=0)
    with refused("SA002"):
        place_hold(db, product)


def test_a_free_product_costs_nothing(db):
    free = order(db, create_product(db, price="0"), qty=2)
    assert str(one(db, "select amount from flashsale.get_order(%s)", free)) == "0.00"


def test_the_largest_stock_can_be_sold(db):
    product = create_product(db, stock=2**31 - 1)
    place_hold(db, product, 2**31 - 1)
    with refused("SA002"):
        place_hold(db, product)
    assert audit(db) == []


def test_the_largest_amount_of_an_order_can_be_paid(db):
    dearest = order(db, create_product(db, stock=2**31 - 1, price="999999999999.99"), 2**31 - 1)
    amount = one(db, "select amount from flashsale.get_order(%s)", dearest)
    assert pay(db, dearest, amount=str(amount), currency="USD") == "applied"
    assert audit(db) == []


# --- idempotency keys ---

KEYED = "select flashsale.create_product(%s, %s::int, %s::numeric, %s, %s)"


def test_a_repeated_key_creates_no_second_product(db):
    first = one(db, KEYED, "Drop 7", 5, "99", "USD", "drop 7")
    db.execute("select flashsale.adjust_stock(%s, 5)", (first,))
    assert one(db, KEYED, "Drop 7", 5, "99.00", "USD", "drop 7") == first
    assert one(db, KEYED, "Drop 7", 5, "99", "USD", "drop 7 again") != first
    assert one(db, "select count(*) from flashsale.stock") == 2
    assert audit(db) == []


@pytest.mark.parametrize(
    "arguments",
    [
        ("Drop 8", 5, "99", "USD"),
        ("Drop 7", 6, "99", "USD"),
        ("Drop 7", 5, "98", "USD"),
        ("Drop 7", 5, "99", "EUR"),
        (None, 5, "99", "USD"),
        ("Drop 7", 5, "NaN", "USD"),
    ],
)
def test_the_same_key_with_another_product_is_refused(db, arguments):
    one(db, KEYED, "Drop 7", 5, "99", "USD", "drop 7")
    with refused("SA008"):
        one(db, KEYED, *arguments, "drop 7")
    assert one(db, "select count(*) from flashsale.stock") == 1


def test_each_operation_has_its_own_keys(db):
    product = one(db, KEYED, "Drop 7", 5, "99", "USD", "a key")
    assert one(db, "select total_stock from flashsale.adjust_stock(%s, 1, 'a key')", product) == 6


def test_a_key_used_since_the_snapshot_gets_a_serialization_failure(db, connect):
    operator = connect(autocommit=False)
    operator.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
    operator.execute("select * from flashsale.stock")
    one(db, KEYED, "Drop 7", 5, "99", "USD", "drop 7")
    with refused("40001"):
        one(operator, KEYED, "Drop 7", 5, "99", "USD", "drop 7")
    operator.rollback()
    assert one(db, "select count(*) from flashsale.stock") == 1
