"""`flashsale audit`: whether every invariant holds."""

import sys

import click
from psycopg.rows import dict_row

from flashsale.cli.output import json_option, show
from flashsale.database.connection import connect


@click.command()
@json_option
def audit(as_json: bool) -> None:
    """Prove from tables and ledger that nothing is oversold, leaked, doubled or unaccounted for.

    Exits with 1 if anything is. Reads every table once and locks nothing: safe while a sale runs.
    """
    with connect("audit") as conn:
        rows = conn.cursor(row_factory=dict_row).execute("select * from flashsale.audit()").fetchall()
    show(rows, {"check_name": "check", "detail": "detail"}, as_json=as_json, none="every invariant holds")
    sys.exit(1 if rows else 0)
