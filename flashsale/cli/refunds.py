"""`flashsale refunds`: what is owed back, and making it so."""

import os
import sys
from decimal import Decimal

import click
from psycopg.rows import dict_row
from rich.text import Text

from flashsale.cli.output import console, json_option, print_rows, printable, to_json
from flashsale.cli.types import MONEY
from flashsale.database.connection import connect
from flashsale.errors import UserError
from flashsale.refunds.stripe import API_URL, StripeRefunds
from flashsale.refunds.worker import pay as pay_refunds

API_KEY_VARIABLE = "STRIPE_API_KEY"

DUE = {
    "idempotency_key": "payment",
    "order_id": "order",
    "amount": "amount",
    "currency": "",
    "received_at": "received",
    "reason": "reason",
}
BEGUN = {
    "refund_key": "refund key",
    "payment_key": "payment",
    "order_id": "order",
    "amount": "amount",
    "currency": "",
    "reason": "reason",
}
STYLES = {"done": "green", "failed": "bold red", "unknown": "yellow"}
LIMIT = click.IntRange(1, 1000)


@click.group()
def refunds() -> None:
    """List, begin and record refunds, or make them at the provider."""


@refunds.command("list")
@json_option
def list_(as_json: bool) -> None:
    """List the payments for which money is still owed back."""
    with connect("refunds list") as conn:
        cursor = conn.cursor(row_factory=dict_row)
        rows = cursor.execute("select * from flashsale.refunds_due order by received_at").fetchall()
    print_rows(rows, DUE, as_json=as_json, empty="no refund is due")


@refunds.command()
@click.option("--limit", type=LIMIT, default=100, show_default=True, help="How many at most.")
@click.option("--payment", "payments", multiple=True, help="Only this payment; can be repeated.")
@json_option
def begin(limit: int, payments: tuple[str, ...], as_json: bool) -> None:
    """Take refunds that are due, to make them by hand.

    Use the refund key as the provider's idempotency key. Until an outcome is recorded, the refund is handed
    out again after 5 minutes, under the same key.
    """
    with connect("refunds begin") as conn:
        cursor = conn.cursor(row_factory=dict_row)
        rows = cursor.execute(
            "select * from flashsale.begin_refunds(%s::int, %s::text[])", (limit, list(payments) or None)
        ).fetchall()
    print_rows(rows, BEGUN, as_json=as_json, empty="no refund is due that is not being made")


@refunds.command()
@click.argument("refund_key")
@click.argument("payment_key")
@click.argument("amount", type=MONEY)
@click.option("--status", type=click.Choice(["done", "failed"]), default="done", show_default=True)
@click.option(
    "--kind", type=click.Choice(["refund", "void", "chargeback"]), default="refund", show_default=True
)
@json_option
def record(refund_key: str, payment_key: str, amount: Decimal, status: str, kind: str, as_json: bool) -> None:
    """Record what has become of a refund. Repeated, it changes nothing.

    REFUND_KEY is that of `begin`, or the provider's id of a refund that was made in its dashboard.
    """
    with connect("refunds record") as conn:
        query = "select * from flashsale.record_refund(%s, %s, %s::numeric, %s, %s)"
        arguments = (refund_key, payment_key, amount, status, kind)
        row = conn.cursor(row_factory=dict_row).execute(query, arguments).fetchone()
    if as_json:
        click.echo(to_json(row))
    elif row is not None:
        click.echo("{payment_key}: {refunded} refunded, {still_due} still due".format(**row))


@refunds.command()
@click.option("--provider", type=click.Choice(["stripe"]), required=True, help="Whose payments.")
@click.option("--limit", type=LIMIT, default=100, show_default=True, help="How many at most.")
@click.option("--url", default=API_URL, show_default=True, help="URL of the provider's API.")
@json_option
def pay(provider: str, limit: int, url: str, as_json: bool) -> None:
    """Make the refunds that are due at the provider, and record what it says.

    The API key is read from STRIPE_API_KEY. The command may be stopped and repeated at any time: no money is
    returned twice. Exits with 1 if a refund failed or its outcome is unknown.
    """
    api_key = os.environ.get(API_KEY_VARIABLE, "")
    if not api_key:
        raise UserError(f"set {API_KEY_VARIABLE} to a key of {provider}'s that may write refunds")
    out = console()
    complete = True
    with connect("refunds pay") as conn:
        for request, outcome in pay_refunds(conn, StripeRefunds(api_key, url), limit):
            complete &= outcome.status == "done"
            if as_json:
                click.echo(to_json(request._asdict() | outcome._asdict()))
            else:
                line = Text(outcome.status.ljust(8), STYLES[outcome.status])
                line.append(f" {request.amount} {request.currency}  {printable(request.payment_key)}")
                line.append(f"  {printable(str(outcome.payload.get('error', '')))}", "dim")
                out.print(line, soft_wrap=True)
    sys.exit(0 if complete else 1)
