"""What commands print: tables and colour for people, JSON for programs."""

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

WIDE = 10_000
"""columns where there is no terminal: nothing is wrapped or cut"""

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


def console() -> Console:
    """Standard output: as colourful and wide as the terminal, or plain and never wrapped if there is none."""
    out = Console(highlight=False, markup=False, emoji=False)
    return out if out.is_terminal else Console(highlight=False, markup=False, emoji=False, width=WIDE)


def text(value: object, style: str = "") -> Text:
    """A value for a person to read.

    Names and keys are others' words: what in them would steer the terminal is shown, not obeyed.
    """
    if value is None:
        return Text("")
    if isinstance(value, datetime):
        value = value.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%SZ")
    elif isinstance(value, timedelta):
        value = seconds(value)
    return Text(printable(str(value)), style)


def printable(words: str) -> str:
    """`words` with control characters spelled out."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in words)


def seconds(span: timedelta) -> str:
    """A span of time to the second: 4 s, 3 min, 2 h, 5 d."""
    total = span.total_seconds()
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if total >= 2 * size:
            return f"{total / size:.0f} {unit}"
    return f"{total:.0f} s"


def table(columns: Sequence[str], rows: Iterable[Iterable[object]]) -> Table:
    """Plain columns under bold heads. Numbers stand right; a Text keeps its style."""
    rows = [list(row) for row in rows]
    made = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for at, column in enumerate(columns):
        numeric = any(isinstance(row[at], int | float | Decimal) for row in rows)
        # Where it gets narrow, words are folded; a number is one word.
        made.add_column(column, justify="right" if numeric else "left", no_wrap=numeric, overflow="fold")
    for row in rows:
        made.add_row(*(cell if isinstance(cell, Text) else text(cell) for cell in row))
    return made


def to_json(value: object) -> str:
    """One line: times in RFC 3339 with Z, money as decimal strings, spans in seconds."""
    return json.dumps(value, default=_jsonable, ensure_ascii=False)


def _jsonable(value: object) -> object:
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
    if isinstance(value, timedelta):
        return value.total_seconds()
    return str(value)


def show(rows: Sequence[Mapping[str, Any]], columns: Mapping[str, str], *, as_json: bool, none: str) -> None:
    """Print rows as one JSON array, as a table, or, if there are no rows, the words `none`.

    :param columns: the table's columns by name, each with its head
    """
    if as_json:
        click.echo(to_json(rows))
    elif rows:
        console().print(table(list(columns.values()), ([row[name] for name in columns] for row in rows)))
    else:
        click.echo(none)
