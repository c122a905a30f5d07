"""`flashsale audit`: verifies the invariants."""

import sys

import click
from psycopg.rows import dict_row

from flashsale.cli.output import json_option, print_rows
from flashsale.database.connection import connect


@click.command()
@json_option
def audit(as_json: bool) -> None:
    """Verify that stock, holds, orders, payments and ledger are consistent.

    Prints every violated invariant and exits with 1 if there is one. Reads every table once and takes no
    locks: safe during a sale.
    """
    with connect("audit") as conn:
        rows = conn.cursor(row_factory=dict_row).execute("select * from flashsale.audit()").fetchall()
    columns = {"check_name": "check", "detail": "detail"}
    print_rows(rows, columns, as_json=as_json, empty="every invariant holds")
    sys.exit(1 if rows else 0)
