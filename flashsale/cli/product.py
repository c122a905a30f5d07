"""`flashsale product`: creates, lists and restocks products."""

from decimal import Decimal

import click
from psycopg.rows import dict_row

from flashsale.cli.output import json_option, print_rows, printable, to_json
from flashsale.cli.types import ID, MONEY, UNITS
from flashsale.database.connection import connect, fetch_value

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
    """Create, list and restock products."""


@product.command()
@click.argument("name")
@click.option("--stock", type=UNITS, required=True, help="Units in stock.")
@click.option("--price", type=MONEY, required=True, help="Unit price, such as 99.00.")
@click.option("--currency", default="USD", show_default=True, help="ISO 4217 code.")
@json_option
def create(name: str, stock: int, price: Decimal, currency: str, as_json: bool) -> None:
    """Create a product. It is on sale immediately."""
    with connect("product create") as conn:
        product_id = fetch_value(
            conn,
            "select flashsale.create_product(%s, %s::int, %s::numeric, %s)",
            (name, stock, price, currency),
        )
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
@json_option
def restock(product_id: int, units: int, as_json: bool) -> None:
    """Add UNITS to a product's stock; a negative number removes units.

    Only available units can be removed, not held, ordered or paid ones.
    """
    with connect("product restock") as conn:
        query = "select * from flashsale.adjust_stock(%s::bigint, %s::int)"
        row = conn.cursor(row_factory=dict_row).execute(query, (product_id, units)).fetchone()
    if as_json:
        click.echo(to_json(row))
    elif row is not None:
        click.echo("product {product_id}: {available_stock} of {total_stock} available".format(**row))
