"""`flashsale watch`: a live view of the sale."""

import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeAlias

import click
import psycopg
from psycopg.rows import dict_row
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.live import Live
from rich.measure import Measurement
from rich.segment import Segment
from rich.text import Text

from flashsale.cli.output import WIDTH, console, json_option, table, text, to_json
from flashsale.cli.types import ID
from flashsale.database.connection import Connection, describe_error, fetch_value, poll
from flashsale.durations import format_duration

_Snapshot: TypeAlias = dict[str, Any]

# A test product is shown if it is named.
_PRODUCTS = """
    select s.*, t.sale_status, t.starts_at, t.ends_at, t.max_per_buyer, t.now
      from flashsale.list_sale(p_tests => %(only)s::bigint[] is not null) s
      join flashsale.terms t using (product_id)
     where %(only)s::bigint[] is null or s.product_id = any (%(only)s)
     order by s.product_id
"""
_REFUNDS = """
    select r.currency, count(*) as payments, sum(r.amount) as amount,
           count(*) filter (where r.amount is null) as without_amount
      from flashsale.refunds_due r group by 1 order by 1
"""
_REJECTED = """
    select count(*) as webhooks, clock_timestamp() - min(r.first_seen_at) as oldest
      from flashsale.rejected_webhooks r
"""
_SCHEDULER = """
    select r.scheduler as status, s.last_run_at, s.lag, clock_timestamp() - s.last_run_at as since_last_run
      from flashsale.readiness() r, flashsale.scheduler s
"""


@click.command()
@click.option("--once", is_flag=True, help="Print one snapshot and exit.")
@click.option(
    "--interval",
    type=click.FloatRange(0.1, 3600),
    default=1.0,
    show_default=True,
    help="Seconds between snapshots.",
)
@click.option("--product", "only", type=ID, multiple=True, help="Only this product; can be repeated.")
@json_option
def watch(once: bool, interval: float, only: tuple[int, ...], as_json: bool) -> None:
    """Show stock, recent rates, refunds due, rejected webhooks and the scheduler, until Ctrl-C."""
    snapshots = poll(lambda conn: read_snapshot(conn, only), "watch")
    if not once:
        return show(snapshots, interval, as_json=as_json)
    snapshot = next(snapshots)
    if isinstance(snapshot, psycopg.OperationalError):
        raise snapshot
    print_snapshot(snapshot, as_json=as_json)


def read_snapshot(conn: Connection, only: Sequence[int]) -> _Snapshot:
    """What a database says now.

    :param only: ids of the products to show; empty for all
    """
    query = conn.cursor(row_factory=dict_row).execute
    return {
        "at": fetch_value(conn, "select clock_timestamp()"),
        "products": query(_PRODUCTS, {"only": list(only) or None}).fetchall(),
        "refunds_due": query(_REFUNDS).fetchall(),
        "rejected_webhooks": query(_REJECTED).fetchone(),
        "scheduler": query(_SCHEDULER).fetchone(),
    }


def show(
    snapshots: Iterator[_Snapshot | psycopg.OperationalError], interval: float, *, as_json: bool
) -> None:
    """Show snapshots until Ctrl-C."""
    with _exit_on_signals():
        if console().is_terminal and not as_json:
            _print_live(snapshots, interval)
        else:
            _print_each(snapshots, interval, as_json)


def print_snapshot(snapshot: _Snapshot, *, as_json: bool) -> None:
    if as_json:
        click.echo(to_json(snapshot))
    else:
        console().print(_render(snapshot))


def _print_each(
    snapshots: Iterator[_Snapshot | psycopg.OperationalError], interval: float, as_json: bool
) -> None:
    for snapshot in snapshots:
        if isinstance(snapshot, psycopg.OperationalError):
            click.echo(f"{describe_error(snapshot)}; retrying", err=True)
        else:
            print_snapshot(snapshot, as_json=as_json)
        time.sleep(interval)


def _print_live(snapshots: Iterator[_Snapshot | psycopg.OperationalError], interval: float) -> None:
    out = console()
    view: RenderableType = Text("…")
    try:
        with Live(view, console=out, screen=True, auto_refresh=False) as live:
            for snapshot in snapshots:
                if isinstance(snapshot, psycopg.OperationalError):
                    error = text(f"{describe_error(snapshot)}; retrying", "bold red")
                    live.update(Group(view, Text(), error), refresh=True)
                else:
                    view = _render(snapshot)
                    live.update(Group(view, Text(), Text("Ctrl-C exits", "dim")), refresh=True)
                time.sleep(interval)
    finally:
        # Live has restored the terminal's contents; the last snapshot is printed below them.
        out.print(view)


@contextmanager
def _exit_on_signals() -> Iterator[None]:
    """Exit with status 0 on SIGINT and SIGTERM."""

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    # Python allows signal handlers in the main thread only.
    is_main = threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGTERM, stop) if is_main else None
    try:
        yield
    except KeyboardInterrupt:
        sys.exit(0)
    finally:
        if before is not None:
            signal.signal(signal.SIGTERM, before)


def _render(snapshot: _Snapshot) -> RenderableType:
    products = snapshot["products"]
    body: RenderableType = _Products(products) if products else Text("no such product")
    at = text(snapshot["at"], "bold")
    return Group(
        at,
        Text(),
        body,
        Text(),
        _refunds(snapshot["refunds_due"]),
        *_rejected(snapshot["rejected_webhooks"]),
        _scheduler(snapshot["scheduler"]),
        *(text(f"{name}: {error}", "bold red") for name, error in snapshot.get("unreachable", {}).items()),
    )


class _Products:
    """A line a product; where its name would be folded, the name has a line of its own, with the sale."""

    MIN_NAME_WIDTH = 24
    COLUMNS = ("total", "available", "held", "awaiting", "paid", "holds/s", "paid/s")

    def __init__(self, rows: list[dict[str, Any]]) -> None:
        self.names = [(row["product_id"], row["name"]) for row in rows]
        self.sales = [_sale(row) for row in rows]
        self.numbers = [
            [
                row["total_stock"], _available(row), row["held"], row["awaiting"], row["paid"],
                row["holds_per_second"], row["paid_per_second"],
            ]
            for row in rows
        ]  # fmt: skip

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        wide = table(
            ["id", "product", *self.COLUMNS, "sale"],
            [
                [*name, *numbers, sale]
                for name, numbers, sale in zip(self.names, self.numbers, self.sales, strict=True)
            ],
        )
        longest = max(text(name).cell_len for _, name in self.names)
        missing = Measurement.get(console, options.update(max_width=WIDTH), wide).maximum - options.max_width
        if missing <= max(0, longest - self.MIN_NAME_WIDTH):
            yield wide
            return
        head, *lines = console.render_lines(table(self.COLUMNS, self.numbers), options)
        yield from [*head, Segment.line()]
        for (product_id, name), sale, line in zip(self.names, self.sales, lines, strict=True):
            yield Text.assemble((f"{product_id}  ", "bold"), text(name), "  ", sale, overflow="fold")
            yield from [*line, Segment.line()]


def _available(row: dict[str, Any]) -> Text:
    available, total = row["available_stock"], row["total_stock"]
    style = "bold red" if available == 0 else "yellow" if available * 10 <= total else "green"
    return Text(str(available), style, justify="right")


def _sale(row: dict[str, Any]) -> Text:
    """The status of a product's sale, with the time until it changes by itself."""
    status, now = row["sale_status"], row["now"]
    said, style = status, {"open": "green", "paused": "bold red"}.get(status, "yellow")
    if status == "scheduled":
        said = f"opens in {_duration(row['starts_at'] - now)}"
    elif status in ("open", "paused") and row["ends_at"] is not None:
        said = f"{status}, ends in {_duration(row['ends_at'] - now)}"
    if row["max_per_buyer"] is not None:
        said += f", limit {row['max_per_buyer']}"
    return Text(said, style)


def _duration(duration: timedelta) -> str:
    return format_duration(max(duration, timedelta(0)))


def _refunds(rows: list[dict[str, Any]]) -> Text:
    if not rows:
        return Text("refunds due  none")
    return text(f"refunds due  {', '.join(map(_sum_of_refunds, rows))}", "bold red")


def _sum_of_refunds(row: dict[str, Any]) -> str:
    amounts = ([] if row["amount"] is None else [str(row["amount"])]) + ["?"] * bool(row["without_amount"])
    return f"{' + '.join(amounts)} {row['currency'] or '?'} in {row['payments']}"


def _rejected(row: dict[str, Any]) -> list[Text]:
    if not row["webhooks"]:
        return []
    detail = f"{row['webhooks']}, the oldest since {format_duration(row['oldest'])}"
    return [text(f"rejected     {detail}; see view flashsale.rejected_webhooks", "bold red")]


def _scheduler(row: dict[str, Any]) -> Text:
    parts = [row["status"].replace("_", " ")]
    if row["last_run_at"]:
        parts.append(f"last run {format_duration(row['since_last_run'])} ago")
    parts.append(f"{format_duration(row['lag'])} behind" if row["lag"] > timedelta(0) else "no lag")
    return text(f"scheduler    {', '.join(parts)}", "" if row["status"] == "alive" else "yellow")
