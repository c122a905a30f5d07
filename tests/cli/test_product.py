"""`flashsale product`."""

import json

import pytest

from tests.support.sale_steps import available, create_product, one, place_hold


def test_create_prints_the_product(flashsale, db):
    result = flashsale("product", "create", "Shoe 🦶", "--stock", 5, "--price", "99")
    assert (result.exit_code, result.stdout) == (0, "product 1: Shoe 🦶, 5 in stock at 99 USD\n")
    assert db.execute("select name, price::text, currency, total_stock from flashsale.stock").fetchall() == [
        ("Shoe 🦶", "99.00", "USD", 5)
    ]


def test_create_prints_the_id_as_json(flashsale):
    result = flashsale(
        "product", "create", "Shoe", "--stock", 5, "--price", "7", "--currency", "JPY", "--json"
    )
    assert json.loads(result.stdout) == {"product_id": 1}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--price", "0.001"], "A price in USD has at most 2 decimals."),
        (["--price", "-1"], "A price is 0 or more"),
        (["--price", "1", "--currency", "usd"], "A currency is an ISO 4217 code"),
        (["--price", "1", "--stock", "-1"], "A product has a stock of 0 or more."),
    ],
)
def test_a_refusal_is_a_one_line_error(flashsale, options, said):
    result = flashsale("product", "create", "Shoe", "--stock", 1, *options)
    assert result.exit_code == 1
    assert result.stderr.startswith("Error: Invalid request: ")
    assert said in result.stderr
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize(
    "options",
    [
        ["--price", "much"],
        ["--price", "NaN"],
        ["--price", "Infinity"],
        [],
        ["--price", "1", "--stock", str(2**31)],
    ],
)
def test_an_invalid_number_is_wrong_usage(flashsale, options):
    assert flashsale("product", "create", "Shoe", "--stock", 1, *options).exit_code == 2


def test_list_shows_the_stock(flashsale, db):
    place_hold(db, create_product(db, stock=10), 3)
    create_product(db, name="Sock")
    lines = flashsale("product", "list").stdout.splitlines()
    assert lines[0].split() == ["id", "product", "total", "available", "held", "awaiting", "paid", "price"]
    assert lines[1].split() == ["1", "Sneaker", "10", "7", "3", "0", "0", "99.00", "USD"]
    assert len(lines) == 3


def test_amounts_are_decimal_strings_in_json(flashsale, db):
    create_product(db, stock=10)
    assert json.loads(flashsale("product", "list", "--json").stdout) == [
        {
            "product_id": 1, "name": "Sneaker", "total_stock": 10, "available_stock": 10, "held": 0,
            "awaiting": 0, "paid": 0, "price": "99.00", "currency": "USD",
        }
    ]  # fmt: skip


def test_an_empty_list_names_product_create(flashsale):
    assert flashsale("product", "list").stdout == "no products; see: flashsale product create --help\n"
    assert json.loads(flashsale("product", "list", "--json").stdout) == []


def test_restock_adds_and_removes_units(flashsale, db):
    create_product(db, stock=10)
    assert flashsale("product", "restock", 1, 5).stdout == "product 1: 15 of 15 available\n"
    assert flashsale("product", "restock", 1, -3).stdout == "product 1: 12 of 12 available\n"
    assert json.loads(flashsale("product", "restock", 1, 1, "--json").stdout) == {
        "product_id": 1, "total_stock": 13, "available_stock": 13,
    }  # fmt: skip
    assert available(db, 1) == 13


def test_restock_cannot_remove_held_units(flashsale, db):
    place_hold(db, create_product(db, stock=2), 2)
    result = flashsale("product", "restock", 1, -1)
    assert result.exit_code == 1
    assert result.stderr.startswith("Error: Stock in use: Product 1 has 0 of 2 units available")
    assert one(db, "select total_stock from flashsale.stock") == 2


def test_an_id_out_of_range_is_wrong_usage(flashsale):
    assert flashsale("product", "restock", 2**63, 1).exit_code == 2
    assert flashsale("product", "restock", 2**63 - 1, 1).exit_code == 1
