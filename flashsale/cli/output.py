"""Output of commands: tables and colour for people, JSON for programs."""

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from flashsale.durations import format_duration

WIDTH = 10_000
"""columns if the output is not a terminal, so that no line is wrapped or cut"""

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


def console() -> Console:
    """Standard output: with colour and the width of the terminal, or plain and unwrapped without one."""
    out = Console(highlight=False, markup=False, emoji=False)
    return out if out.is_terminal else Console(highlight=False, markup=False, emoji=False, width=WIDTH)


def text(value: object, style: str = "") -> Text:
    """A value as text.

    Names and keys come from outside: control characters in them are escaped, not sent to the terminal.
    """
    if value is None:
        return Text("")
    if isinstance(value, datetime):
        value = value.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%SZ")
    elif isinstance(value, timedelta):
        value = format_duration(value)
    return Text(printable(str(value)), style)


def printable(string: str) -> str:
    """`string` with control characters escaped."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in string)


def table(columns: Sequence[str], rows: Iterable[Iterable[object]]) -> Table:
    """Columns with bold headings. Numbers are right-aligned; a Text keeps its style and alignment."""
    cells = [list(row) for row in rows]
    result = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for index, column in enumerate(columns):
        numeric = any(_is_numeric(row[index]) for row in cells)
        # In a narrow terminal text is folded, numbers are not.
        result.add_column(column, justify="right" if numeric else "left", no_wrap=numeric, overflow="fold")
    for row in cells:
        result.add_row(*(cell if isinstance(cell, Text) else text(cell) for cell in row))
    return result


def _is_numeric(cell: object) -> bool:
    return isinstance(cell, int | float | Decimal) or (isinstance(cell, Text) and cell.justify == "right")


def to_json(value: object) -> str:
    """One line: times in RFC 3339 with Z, amounts as decimal strings, durations in seconds."""
    return json.dumps(value, default=_jsonable, ensure_ascii=False)


def _jsonable(value: object) -> object:
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
    if isinstance(value, timedelta):
        return value.total_seconds()
    return str(value)


def print_rows(
    rows: Sequence[Mapping[str, Any]], columns: Mapping[str, str], *, as_json: bool, empty: str
) -> None:
    """Print rows as a JSON array or as a table, or `empty` if there are none.

    :param columns: the table's columns and their headings
    """
    if as_json:
        click.echo(to_json(rows))
    elif rows:
        console().print(table(list(columns.values()), ([row[name] for name in columns] for row in rows)))
    else:
        click.echo(empty)
