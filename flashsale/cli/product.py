"""`flashsale product`: creates, lists, prices and restocks products, and removes test products."""

import sys
from decimal import Decimal
from typing import Any

import click
from psycopg.rows import dict_row

from flashsale.cli.keys import call_with_key, key_option
from flashsale.cli.output import json_option, print_rows, printable, to_json
from flashsale.cli.types import ID, MONEY, UNITS
from flashsale.database.connection import connect
from flashsale.database.forgetting import forget_tests

COLUMNS = {
    "product_id": "id",
    "name": "product",
    "total_stock": "total",
    "available_stock": "available",
    "held": "held",
    "awaiting": "awaiting",
    "paid": "paid",
    "price": "price",
    "currency": "",
}


@click.group()
def product() -> None:
    """Create, list, price and restock products; remove test products."""


@product.command()
@click.argument("name")
@click.option("--stock", type=UNITS, required=True, help="Units in stock.")
@click.option("--price", type=MONEY, required=True, help="Unit price, such as 99.00.")
@click.option("--currency", default="USD", show_default=True, help="ISO 4217 code.")
@click.option("--test", "is_test", is_flag=True, help="A test product: see below.")
@key_option
@json_option
def create(
    name: str, stock: int, price: Decimal, currency: str, is_test: bool, key: str | None, as_json: bool
) -> None:
    """Create a product. It is on sale immediately.

    A test product is sold as any other to whoever knows its id. It is not listed, is left out of metrics,
    views and the events of other services, and is removed by `flashsale product forget-tests`.
    """
    query = (
        "select * from flashsale.create_product(%s, %s::int, %s::numeric, %s, p_is_test => %s,"
        " p_idempotency_key => %s)"
    )
    arguments = (name, stock, price, currency, is_test)
    product_id = call_with_key("product create", query, arguments, key)["product_id"]
    if as_json:
        click.echo(to_json({"product_id": product_id}))
    else:
        kind = "test product" if is_test else "product"
        click.echo(f"{kind} {product_id}: {printable(name)}, {stock} in stock at {price} {currency}")


@product.command("list")
@click.option("--tests", is_flag=True, help="List test products instead.")
@json_option
def list_(tests: bool, as_json: bool) -> None:
    """List all products with their stock: available + held + awaiting payment + paid = total."""
    query = "select * from flashsale.list_stock(p_tests => %(tests)s) where is_test = %(tests)s order by 1"
    with connect("product list") as conn:
        rows = conn.cursor(row_factory=dict_row).execute(query, {"tests": tests}).fetchall()
    empty = "no test products" if tests else "no products; see: flashsale product create --help"
    print_rows(rows, COLUMNS, as_json=as_json, empty=empty)


@product.command(context_settings={"ignore_unknown_options": True})
@click.argument("product_id", type=ID)
@click.argument("units", type=UNITS)
@key_option
@json_option
def restock(product_id: int, units: int, key: str | None, as_json: bool) -> None:
    """Add UNITS to a product's stock; a negative number removes units.

    Only available units can be removed, not held, ordered or paid ones.
    """
    query = "select * from flashsale.adjust_stock(%s::bigint, %s::int, %s)"
    row = call_with_key("product restock", query, (product_id, units), key)
    if as_json:
        click.echo(to_json(row))
    else:
        click.echo("product {product_id}: {available_stock} of {total_stock} available".format(**row))


@product.command("price")
@click.argument("product_id", type=ID)
@click.argument("price", type=MONEY)
@json_option
def change_price(product_id: int, price: Decimal, as_json: bool) -> None:
    """Set a product's price for the holds that are placed from now on.

    Holds and orders that exist keep theirs.
    """
    with connect("product price") as conn:
        query = "select * from flashsale.change_price(%s::bigint, %s::numeric)"
        row = conn.cursor(row_factory=dict_row).execute(query, (product_id, price)).fetchone()
    if as_json:
        click.echo(to_json(row))
    elif row is not None:
        click.echo("product {product_id}: {price} {currency} from the next hold on".format(**row))


@product.command("forget-tests")
@click.argument("product_ids", metavar="[PRODUCT_ID]...", type=ID, nargs=-1)
@json_option
def forget(product_ids: tuple[int, ...], as_json: bool) -> None:
    """Remove test products with all that was sold of them; without ids, all test products.

    Their holds, orders, payments, keys and events are deleted. One that is in use is taken off sale and tried
    again for 10 seconds; exits with 1 if it is still in use then.
    """
    with connect("product forget-tests") as conn:
        rows = forget_tests(conn, product_ids or None)
    if as_json:
        click.echo(to_json(rows))
    elif not rows:
        click.echo("no test products" if not product_ids else "no such products")
    else:
        for row in rows:
            click.echo(_forgotten(row))
    sys.exit(0 if all(row["forgotten"] for row in rows) else 1)


def _forgotten(row: dict[str, Any]) -> str:
    if not row["forgotten"]:
        return f"product {row['product_id']}: in use, and taken off sale; repeat the command"
    counts = ", ".join(f"{row[name]:,} {name}" for name in ("holds", "orders", "payments", "events"))
    return f"product {row['product_id']}: removed, with {counts}"
