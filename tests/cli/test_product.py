"""`flashsale product`."""

import json

import pytest

from tests.support.cutting_proxy import losing_answers
from tests.support.sale_steps import available, create_product, one, order, pay, place_hold


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
            "awaiting": 0, "paid": 0, "price": "99.00", "currency": "USD", "is_test": False,
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


# --- idempotency keys ---

MAY_HAVE = "the connection was lost before the answer came: it may have happened"


def test_a_repeated_key_has_no_second_effect(flashsale, db):
    words = ["product", "create", "Drop", "--stock", 10, "--price", 5, "--key", "drop"]
    assert flashsale(*words).stdout == flashsale(*words).stdout == "product 1: Drop, 10 in stock at 5 USD\n"
    words = ["product", "restock", 1, 500, "--key", "delivery"]
    assert flashsale(*words).stdout == flashsale(*words).stdout == "product 1: 510 of 510 available\n"
    assert available(db, 1) == 510
    result = flashsale("product", "restock", 1, 499, "--key", "delivery")
    assert result.exit_code == 1
    assert result.stderr.startswith("Error: Idempotency key reused: ")


def test_without_a_key_each_command_has_its_own(flashsale, db):
    create_product(db, stock=10)
    flashsale("product", "restock", 1, 5)
    assert flashsale("product", "restock", 1, 5).stdout == "product 1: 20 of 20 available\n"


def test_a_command_whose_answer_is_lost_is_repeated_and_has_one_effect(flashsale, db, cluster, database_url):
    create_product(db, stock=10)
    with losing_answers(cluster, database_url, b"adjust_stock") as url:
        result = flashsale("product", "restock", 1, 500, FLASHSALE_DATABASE_URL=url)
    assert (result.exit_code, result.stdout) == (0, "product 1: 510 of 510 available\n")
    assert result.stderr == f"{MAY_HAVE}; repeating it with the same key, which has no second effect\n"
    assert available(db, 1) == 510
    with losing_answers(cluster, database_url, b"create_product") as url:
        flashsale("product", "create", "Drop", "--stock", 1, "--price", 5, FLASHSALE_DATABASE_URL=url)
    assert one(db, "select count(*) from flashsale.stock where name = 'Drop'") == 1


def test_where_answers_keep_being_lost_the_error_names_the_key(flashsale, db, cluster, database_url):
    create_product(db, stock=10)
    with losing_answers(cluster, database_url, b"adjust_stock", times=2) as url:
        result = flashsale("product", "restock", 1, 500, FLASHSALE_DATABASE_URL=url)
    assert result.exit_code == 1
    error = result.stderr.splitlines()[-1]
    assert error.startswith(f"Error: {MAY_HAVE}. Repeat the command with --key ")
    assert "connect to" not in result.stderr and "cannot reach" not in result.stderr
    key = error.split("--key ")[1].split(":")[0]
    assert flashsale("product", "restock", 1, 500, "--key", key).exit_code == 0
    assert available(db, 1) == 510


def test_a_query_whose_answer_is_lost_is_no_failure_to_connect(flashsale, db, cluster, database_url):
    with losing_answers(cluster, database_url, b"list_stock") as url:
        result = flashsale("product", "list", FLASHSALE_DATABASE_URL=url)
    assert result.exit_code == 1
    assert result.stderr.startswith("Error: the connection to the database was lost: ")


# --- price ---


def test_price_is_that_of_the_next_hold(flashsale, db):
    place_hold(db, create_product(db))
    assert flashsale("product", "price", 1, "89.5").stdout == "product 1: 89.50 USD from the next hold on\n"
    place_hold(db, 1)
    prices = db.execute("select price::text from flashsale_data.holds order by placed_at").fetchall()
    assert prices == [("99.00",), ("89.50",)]
    assert json.loads(flashsale("product", "price", 1, "80", "--json").stdout) == {
        "product_id": 1, "price": "80.00", "currency": "USD",
    }  # fmt: skip


@pytest.mark.parametrize(("arguments", "code"), [((1, "0.001"), 1), ((2, "1"), 1), ((1, "much"), 2)])
def test_what_is_no_price_is_an_error(flashsale, db, arguments, code):
    create_product(db)
    assert flashsale("product", "price", *arguments).exit_code == code


# --- test products ---


def test_a_test_product_is_listed_apart(flashsale, db):
    create_product(db)
    created = flashsale("product", "create", "Trial", "--stock", 5, "--price", "99", "--test")
    assert created.stdout == "test product 2: Trial, 5 in stock at 99 USD\n"
    assert [row["product_id"] for row in json.loads(flashsale("product", "list", "--json").stdout)] == [1]
    tests = json.loads(flashsale("product", "list", "--tests", "--json").stdout)
    assert [(row["product_id"], row["is_test"]) for row in tests] == [(2, True)]


def test_forget_tests_removes_them(flashsale, db):
    create_product(db)
    tests = [create_product(db, is_test=True) for _ in range(3)]
    pay(db, order(db, tests[0]))
    result = flashsale("product", "forget-tests", tests[0])
    assert (result.exit_code, result.stdout) == (
        0, "product 2: removed, with 1 holds, 1 orders, 1 payments, 4 events\n"
    )  # fmt: skip
    rows = json.loads(flashsale("product", "forget-tests", "--json").stdout)
    assert [row["product_id"] for row in rows] == [
        3, 4,
    ]  # fmt: skip
    assert flashsale("product", "forget-tests").stdout == "no test products\n"
    assert flashsale("product", "forget-tests", tests[0]).stdout == "no such products\n"
    assert flashsale("product", "list", "--tests").stdout == "no test products\n"


def test_forget_tests_refuses_a_real_product(flashsale, db):
    result = flashsale("product", "forget-tests", create_product(db))
    assert result.exit_code == 1
    assert "Product 1 is not a test product." in result.stderr
    assert one(db, "select count(*) from flashsale.stock") == 1


def test_forget_tests_waits_for_a_product_in_use_and_says_so(flashsale, db, connect, monkeypatch):
    monkeypatch.setattr("flashsale.database.forgetting.TIMEOUT_SECONDS", 0.2)
    product = create_product(db, is_test=True)
    made = order(db, product)
    provider = connect(autocommit=False)
    provider.execute("select from flashsale_data.orders where order_id = %s for no key update", (made,))
    result = flashsale("product", "forget-tests")
    assert (result.exit_code, result.stdout) == (
        1, "product 1: in use, and taken off sale; repeat the command\n"
    )  # fmt: skip
    assert available(db, product) == 0
    provider.rollback()
    assert flashsale("product", "forget-tests").exit_code == 0
