"""`flashsale product`: creates, lists, prices and restocks products."""

from decimal import Decimal

import click
from psycopg.rows import dict_row

from flashsale.cli.keys import call_with_key, key_option
from flashsale.cli.output import json_option, print_rows, printable, to_json
from flashsale.cli.types import ID, MONEY, UNITS
from flashsale.database.connection import connect

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
    """Create, list, price and restock products."""


@product.command()
@click.argument("name")
@click.option("--stock", type=UNITS, required=True, help="Units in stock.")
@click.option("--price", type=MONEY, required=True, help="Unit price, such as 99.00.")
@click.option("--currency", default="USD", show_default=True, help="ISO 4217 code.")
@key_option
@json_option
def create(name: str, stock: int, price: Decimal, currency: str, key: str | None, as_json: bool) -> None:
    """Create a product. It is on sale immediately."""
    query = "select * from flashsale.create_product(%s, %s::int, %s::numeric, %s, %s)"
    product_id = call_with_key("product create", query, (name, stock, price, currency), key)["product_id"]
    if as_json:
        click.echo(to_json({"product_id": product_id}))
    else:
        click.echo(f"product {product_id}: {printable(name)}, {stock} in stock at {price} {currency}")


@product.command("list")
@json_option
def list_(as_json: bool) -> None:
    """List all products with their stock: available + held + awaiting payment + paid = total."""
    with connect("product list") as conn:
        cursor = conn.cursor(row_factory=dict_row)
        rows = cursor.execute("select * from flashsale.stock order by product_id").fetchall()
    print_rows(rows, COLUMNS, as_json=as_json, empty="no products; see: flashsale product create --help")


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
