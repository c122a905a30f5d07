"""`flashsale product`: creates, lists, prices and restocks products, sets the terms of their sale, and
removes test products."""

import sys
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from typing import Any, TypeVar

import click
from psycopg.rows import dict_row

from flashsale.cli.keys import call_with_key, key_option
from flashsale.cli.output import json_option, print_rows, printable, to_json
from flashsale.cli.types import COUNT, DURATION, ID, INSTANT, MONEY, UNITS, OrNone
from flashsale.database.connection import connect
from flashsale.database.forgetting import forget_tests
from flashsale.errors import UserError

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

TERMS = {
    "product_id": "id",
    "name": "product",
    "sale_status": "sale",
    "starts_at": "starts at",
    "ends_at": "ends at",
    "max_per_buyer": "limit",
    "limit_group": "group",
    "max_per_hold": "per hold",
    "hold_time": "hold time",
    "payment_window": "payment window",
    "listed": "listed",
}
_ARGUMENTS = {
    "starts_at": "p_starts_at => %s::timestamptz",
    "ends_at": "p_ends_at => %s::timestamptz",
    "limit": "p_max_per_buyer => %s::int",
    "group": "p_limit_group => %s",
    "hold_time": "p_hold_time => %s::interval",
    "payment_window": "p_payment_window => %s::interval",
    "max_per_hold": "p_max_per_hold => %s::int",
    "listed": "p_listed => %s::boolean",
}
"""arguments of create_product() and change_terms(), by option"""
_NAMED = ", ".join(_ARGUMENTS.values())
_CREATE = f"""
    select * from flashsale.create_product(
      %s, %s::int, %s::numeric, %s, p_is_test => %s, p_slot => %s::int, {_NAMED},
      p_idempotency_key => %s)
"""  # noqa: S608 - constants
_CHANGE = f"select from flashsale.change_terms(%s::bigint[], {_NAMED})"
_TERMS = """
    select t.*, s.name from flashsale.terms t join flashsale.stock s using (product_id)
     where t.product_id = any (%s::bigint[]) order by t.product_id
"""

Command = TypeVar("Command", bound=Callable[..., Any])


def _term_options(command: Command) -> Command:
    """The options of terms that create and terms have in common."""
    instant = "as a time with its zone: 2026-11-28T10:00+01:00, or '2026-11-28 10:00 Europe/Berlin'."
    options = {
        "--starts-at": (OrNone(INSTANT, "-infinity"), f"When the sale starts, {instant}"),
        "--ends-at": (OrNone(INSTANT, "infinity"), "When the sale ends, likewise."),
        "--limit": (OrNone(COUNT, 0), "Units that one buyer can have."),
        "--group": (OrNone(click.STRING, ""), "Products with the same group count together for the limit."),
        "--hold-time": (OrNone(DURATION, "0"), "How long a hold lasts, such as 90s or 2min."),
        "--payment-window": (OrNone(DURATION, "0"), "How long an order awaits payment, such as 15min."),
    }
    for name, (type_, text) in reversed(options.items()):
        command = click.option(name, type=type_, help=text)(command)
    return command


def _values(terms: Mapping[str, object]) -> list[object]:
    return [terms[option] for option in _ARGUMENTS]


def _print_terms(product_ids: Sequence[int], as_json: bool) -> None:
    with connect("product terms") as conn:
        rows = conn.cursor(row_factory=dict_row).execute(_TERMS, (list(product_ids),)).fetchall()
    if unknown := set(product_ids) - {row["product_id"] for row in rows}:
        raise UserError(f"there is no product {', '.join(map(str, sorted(unknown)))}")
    print_rows(rows, TERMS, as_json=as_json, empty="")


@click.group()
def product() -> None:
    """Create, list, price and restock products; set the terms of their sale; remove test products."""


@product.command()
@click.argument("name")
@click.option("--stock", type=UNITS, required=True, help="Units in stock.")
@click.option("--price", type=MONEY, required=True, help="Unit price, such as 99.00.")
@click.option("--currency", default="USD", show_default=True, help="ISO 4217 code.")
@_term_options
@click.option(
    "--max-per-hold", type=OrNone(COUNT, 0), default="10", show_default=True, help="Units in one hold."
)
@click.option("--test", "is_test", is_flag=True, help="A test product: see below.")
@click.option("--unlisted", is_flag=True, help="Keep it out of the list of products.")
@key_option
@json_option
def create(
    name: str,
    stock: int,
    price: Decimal,
    currency: str,
    is_test: bool,
    unlisted: bool,
    key: str | None,
    as_json: bool,
    slot: int | None = None,
    **terms: object,
) -> None:
    """Create a product. Without --starts-at, it is on sale immediately.

    --max-per-hold none allows any number of units in one hold.

    A test product is sold as any other to clients that know its id. It is not listed, is left out of metrics,
    views and the events of other services, and is removed by `flashsale product forget-tests`.
    """
    terms["listed"] = not unlisted
    arguments = (name, stock, price, currency, is_test, slot, *_values(terms))
    row = call_with_key("product create", _CREATE, arguments, key)
    if as_json:
        click.echo(to_json({"product_id": row["product_id"]}))
        return
    kind = "test product" if is_test else "product"
    click.echo(f"{kind} {row['product_id']}: {printable(name)}, {stock} in stock at {price} {currency}")


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


@product.command()
@click.argument("product_ids", type=ID, nargs=-1, required=True)
@_term_options
@click.option("--max-per-hold", type=OrNone(COUNT, 0), help="Units in one hold.")
@click.option("--listed/--unlisted", default=None, help="Whether it is in the list of products.")
@json_option
def terms(product_ids: tuple[int, ...], as_json: bool, **changes: object) -> None:
    """Show when, how and to whom products are sold, or change that.

    A change applies to all PRODUCT_IDS at once, from the next hold on; holds and orders that exist stay. A
    term is lifted by `none`.
    """
    if any(change is not None for change in changes.values()):
        with connect("product terms") as conn:
            conn.execute(_CHANGE, (list(product_ids), *_values(changes)))
    _print_terms(product_ids, as_json)


@product.command()
@click.argument("product_ids", type=ID, nargs=-1, required=True)
@json_option
def pause(product_ids: tuple[int, ...], as_json: bool) -> None:
    """Stop the sale of products: no new holds. Existing holds, orders and payments go on."""
    with connect("product pause") as conn:
        conn.execute("select from flashsale.pause_sale(%s::bigint[])", (list(product_ids),))
    _print_terms(product_ids, as_json)


@product.command()
@click.argument("product_ids", type=ID, nargs=-1, required=True)
@json_option
def resume(product_ids: tuple[int, ...], as_json: bool) -> None:
    """Continue the sale of products that were paused."""
    with connect("product resume") as conn:
        conn.execute("select from flashsale.resume_sale(%s::bigint[])", (list(product_ids),))
    _print_terms(product_ids, as_json)
