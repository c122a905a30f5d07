"""Commands whose repetition would add up: each call has an idempotency key, so that it can be repeated."""

import shlex
import uuid
from collections.abc import Sequence
from contextlib import closing
from typing import Any

import click
import psycopg
from psycopg.abc import QueryNoTemplate
from psycopg.rows import dict_row

from flashsale.database.connection import CannotConnect, Connection, connect
from flashsale.errors import UserError

_LOST = "the connection was lost before the answer came: it may have happened"

key_option = click.option(
    "--key", help="Idempotency key: repeated with it, the command has no second effect.  [default: random]"
)


def call_with_key(
    command: str, query: QueryNoTemplate, parameters: Sequence[object], key: str | None
) -> dict[str, Any]:
    """The row that a function returns whose last parameter is an idempotency key.

    If the connection is lost before the answer comes, the function is called once more with the same key.

    :param command: shown as application_name in pg_stat_activity
    :param key: None for a random one
    :raises UserError: the outcome is unknown; the message names the key to repeat the command with
    """
    key = str(uuid.uuid4()) if key is None else key
    with closing(connect(command)) as conn:
        row = _row_unless_lost(conn, query, [*parameters, key])
    if row is None:
        click.echo(f"{_LOST}; repeating it with the same key, which has no second effect", err=True)
        try:
            with closing(connect(command)) as conn:
                row = _row_unless_lost(conn, query, [*parameters, key])
        except CannotConnect:
            pass
    if row is None:
        raise UserError(
            f"{_LOST}. Repeat the command with --key {shlex.quote(key)}: if it has happened, that has no"
            " second effect and prints the same answer"
        )
    return row


def _row_unless_lost(
    conn: Connection, query: QueryNoTemplate, parameters: Sequence[object]
) -> dict[str, Any] | None:
    """The row; None if the connection was lost before it came."""
    try:
        row = conn.cursor(row_factory=dict_row).execute(query, parameters).fetchone()
    except psycopg.OperationalError as error:
        state = error.sqlstate
        if conn.broken or state is None or state.startswith(("08", "57P")):  # guard: answer-lost
            return None
        raise
    if row is None:
        raise LookupError(f"no row: {query!r}")
    return row
