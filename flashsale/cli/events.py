"""`flashsale events`: the ledger, read as any other service would read it."""

import time

import click
import psycopg
from psycopg.rows import dict_row
from rich.text import Text

from flashsale.cli.output import console, printable, text, to_json
from flashsale.database.connection import explain, repeatedly

PAGE = 1000
"""events in one call"""
PAUSE = 0.5
"""seconds until the end of the ledger is looked at again"""

_STYLES = {
    "order_paid": "green",
    "order_cancelled": "yellow",
    "hold_expired": "yellow",
    "hold_released": "yellow",
    "refund_due": "red",
    "amount_mismatch": "red",
}


@click.command()
@click.option("--after", type=click.IntRange(0, 2**63 - 1), default=0, help="Begin after this event_id.")
@click.option("--follow", "-f", is_flag=True, help="Go on as events come in, until Ctrl-C.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a line.")
def events(after: int, follow: bool, as_json: bool) -> None:
    """Print the ledger: every state change once, in order, none skipped however late it commits.

    To go on later where this stopped, pass the last event_id as --after.
    """
    out = console()

    def read(conn: psycopg.Connection) -> list[dict]:
        conn.isolation_level = psycopg.IsolationLevel.READ_COMMITTED
        # A transaction of its own, so that the level counts.
        with conn.transaction():
            return (
                conn.cursor(row_factory=dict_row)
                .execute("select * from flashsale.read_events(%s::bigint, %s)", (after, PAGE))
                .fetchall()
            )

    away = False
    try:
        for page in repeatedly(read, "events"):
            if isinstance(page, psycopg.OperationalError):
                if not follow:
                    raise page
                if not away:
                    click.echo(f"{explain(page)}; trying again", err=True)
                away = True
                time.sleep(PAUSE)
                continue
            away = False
            for event in page:
                if as_json:
                    click.echo(to_json(event))
                elif out.is_terminal:
                    out.print(_line(event), soft_wrap=True)
                else:
                    click.echo(_line(event).plain)
                after = event["event_id"]
            if len(page) < PAGE:
                if not follow:
                    return
                time.sleep(PAUSE)
    except KeyboardInterrupt:
        return


def _line(event: dict) -> Text:
    line = Text(f"{event['event_id']:>8}  ")
    line.append_text(text(event["at"]))
    line.append(f"  {event['kind']:<16}", _STYLES.get(event["kind"], ""))
    line.append(f"{event['available_delta']:+5d}" if event["available_delta"] else " " * 5)
    for word, column in (("product", "product_id"), ("hold", "hold_id"), ("order", "order_id")):
        if event[column] is not None:
            line.append(f"  {word} {event[column]}")
    if event["payment_key"] is not None:
        line.append(f"  payment {printable(event['payment_key'])}")
    if event["data"] is not None:
        line.append(f"  {printable(to_json(event['data']))}", "dim")
    return line
