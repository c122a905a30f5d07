"""`flashsale events`: the ledger, by the function that other services read it with."""

import time
from typing import Any

import click
import psycopg
from psycopg.rows import dict_row
from rich.text import Text

from flashsale.cli.output import console, printable, text, to_json
from flashsale.database.connection import Connection, describe_error, poll

PAGE_SIZE = 1000
POLL_INTERVAL_SECONDS = 0.5
"""seconds"""

_STYLES = {
    "order_paid": "green",
    "order_cancelled": "yellow",
    "hold_expired": "yellow",
    "hold_released": "yellow",
    "refund_due": "red",
    "amount_mismatch": "red",
}


@click.command()
@click.option("--after", type=click.IntRange(0, 2**63 - 1), default=0, help="Start after this event_id.")
@click.option("--follow", "-f", is_flag=True, help="Print new events as they are committed, until Ctrl-C.")
@click.option("--tests", is_flag=True, help="Print the events of test products, too.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object per line.")
def events(after: int, follow: bool, tests: bool, as_json: bool) -> None:
    """Print the ledger: every state change exactly once, in the order of event_id.

    To resume later, pass the last event_id as --after.
    """
    out = console()

    def read_page(conn: Connection) -> list[dict[str, Any]]:
        conn.isolation_level = psycopg.IsolationLevel.READ_COMMITTED
        # The level applies to transactions that start after it is set.
        with conn.transaction():
            return (
                conn.cursor(row_factory=dict_row)
                .execute("select * from flashsale.read_events(%s::bigint, %s, %s)", (after, PAGE_SIZE, tests))
                .fetchall()
            )

    disconnected = False
    try:
        for page in poll(read_page, "events"):
            if isinstance(page, psycopg.OperationalError):
                if not follow:
                    raise page
                if not disconnected:
                    click.echo(f"{describe_error(page)}; retrying", err=True)
                disconnected = True
                time.sleep(POLL_INTERVAL_SECONDS)
                continue
            disconnected = False
            for event in page:
                if as_json:
                    click.echo(to_json(event))
                elif out.is_terminal:
                    out.print(_format(event), soft_wrap=True)
                else:
                    click.echo(_format(event).plain)
                after = event["event_id"]
            if len(page) < PAGE_SIZE:
                if not follow:
                    return
                time.sleep(POLL_INTERVAL_SECONDS)
    except KeyboardInterrupt:
        return


def _format(event: dict[str, Any]) -> Text:
    line = Text(f"{event['event_id']:>8}  ")
    line.append_text(text(event["at"]))
    line.append(f"  {event['kind']:<16}", _STYLES.get(event["kind"], ""))
    line.append(f"{event['available_delta']:+5d}" if event["available_delta"] else " " * 5)
    for label, column in (("product", "product_id"), ("hold", "hold_id"), ("order", "order_id")):
        if event[column] is not None:
            line.append(f"  {label} {event[column]}")
    if event["payment_key"] is not None:
        line.append(f"  payment {printable(event['payment_key'])}")
    if event["is_test"]:
        line.append("  test", "dim")
    if event["data"] is not None:
        line.append(f"  {printable(to_json(event['data']))}", "dim")
    return line
