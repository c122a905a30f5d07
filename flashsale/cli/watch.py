"""`flashsale watch`: the sale as it stands."""

import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import click
import psycopg
from psycopg.rows import dict_row
from rich.console import Group, RenderableType
from rich.live import Live
from rich.text import Text

from flashsale.cli.output import console, json_option, seconds, table, text, to_json
from flashsale.cli.product import BIGINT
from flashsale.database.connection import explain, repeatedly

_Look = dict[str, Any] | psycopg.OperationalError

_PRODUCTS = """
    select * from flashsale.sale s
     where %(only)s::bigint[] is null or s.product_id = any (%(only)s)
     order by s.product_id
"""
_REFUNDS = """
    select r.currency, count(*) as payments, sum(r.amount) as amount
      from flashsale.refunds_due r group by 1 order by 1
"""
_SCHEDULER = """
    select r.scheduler as status, s.last_run_at, s.lag, clock_timestamp() - s.last_run_at as since_last_run
      from flashsale.readiness() r, flashsale.scheduler s
"""


@click.command()
@click.option("--once", is_flag=True, help="Print it once and exit.")
@click.option(
    "--interval", type=click.FloatRange(0.1, 3600), default=1.0, show_default=True, help="Seconds apart."
)
@click.option("--product", "only", type=BIGINT, multiple=True, help="Only this product; may be repeated.")
@json_option
def watch(once: bool, interval: float, only: tuple[int, ...], as_json: bool) -> None:
    """Watch the sale: stock, rates of the last 10 seconds, refunds due, the scheduler. Ctrl-C ends it."""

    def look(conn: psycopg.Connection[Any]) -> dict[str, Any]:
        ask = conn.cursor(row_factory=dict_row).execute
        return {
            "at": conn.execute("select clock_timestamp()").fetchone()[0],
            "products": ask(_PRODUCTS, {"only": list(only) or None}).fetchall(),
            "refunds_due": ask(_REFUNDS).fetchall(),
            "scheduler": ask(_SCHEDULER).fetchone(),
        }

    looks = repeatedly(look, "watch")
    if once:
        seen = next(looks)
        if isinstance(seen, psycopg.OperationalError):
            raise seen
        _print(seen, as_json)
        return
    out = console()
    with _until_asked_to_stop():
        if out.is_terminal and not as_json:
            _live(looks, interval)
        else:
            _one_after_the_other(looks, interval, as_json)


def _print(seen: dict[str, Any], as_json: bool) -> None:
    if as_json:
        click.echo(to_json(seen))
    else:
        console().print(_picture(seen))


def _one_after_the_other(looks: Iterator[_Look], interval: float, as_json: bool) -> None:
    for seen in looks:
        if isinstance(seen, psycopg.OperationalError):
            click.echo(f"{explain(seen)}; trying again", err=True)
        else:
            _print(seen, as_json)
        time.sleep(interval)


def _live(looks: Iterator[_Look], interval: float) -> None:
    out = console()
    picture: RenderableType = Text("…")
    try:
        with Live(picture, console=out, screen=True, auto_refresh=False) as live:
            for seen in looks:
                if isinstance(seen, psycopg.OperationalError):
                    trouble = text(f"{explain(seen)}; trying again", "bold red")
                    live.update(Group(picture, Text(), trouble), refresh=True)
                else:
                    picture = _picture(seen)
                    live.update(Group(picture, Text(), Text("Ctrl-C ends", "dim")), refresh=True)
                time.sleep(interval)
    finally:
        # The screen as it was before, with the last look below.
        out.print(picture)


@contextmanager
def _until_asked_to_stop() -> Iterator[None]:
    """Ctrl-C and SIGTERM end what is inside, quietly: to stop watching is no failure."""

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    ours = threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGTERM, stop) if ours else None
    try:
        yield
    except KeyboardInterrupt:
        sys.exit(0)
    finally:
        if before is not None:
            signal.signal(signal.SIGTERM, before)


def _picture(seen: dict[str, Any]) -> RenderableType:
    heads = ["id", "product", "total", "available", "held", "awaiting", "paid", "holds/s", "paid/s"]
    rows = [
        [
            row["product_id"], row["name"], row["total_stock"], _available(row), row["held"],
            row["awaiting"], row["paid"], row["holds_per_second"], row["paid_per_second"],
        ]
        for row in seen["products"]
    ]  # fmt: skip
    body: RenderableType = table(heads, rows) if rows else Text("no such product")
    at = text(seen["at"], "bold")
    return Group(at, Text(), body, Text(), _refunds(seen["refunds_due"]), _scheduler(seen["scheduler"]))


def _available(row: dict[str, Any]) -> Text:
    left, total = row["available_stock"], row["total_stock"]
    style = "bold red" if left == 0 else "yellow" if left * 10 <= total else "green"
    return Text(str(left), style, justify="right")


def _refunds(rows: list[dict[str, Any]]) -> Text:
    if not rows:
        return Text("refunds due  none")
    sums = ", ".join(f"{row['amount']} {row['currency']} in {row['payments']}" for row in rows)
    return text(f"refunds due  {sums}", "bold red")


def _scheduler(row: dict[str, Any]) -> Text:
    words = [row["status"].replace("_", " ")]
    if row["last_run_at"]:
        words.append(f"last run {seconds(row['since_last_run'])} ago")
    words.append(f"{seconds(row['lag'])} behind" if row["lag"] > timedelta(0) else "nothing overdue")
    return text(f"scheduler    {', '.join(words)}", "" if row["status"] == "alive" else "yellow")
