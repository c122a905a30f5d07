"""A new shard: the schema, the shop's number of slots and its settings. It owns no slot yet."""

from collections.abc import Callable, Sequence

import psycopg
from psycopg import sql

from flashsale.database.connection import connect, describe_error, fetch_row, fetch_value
from flashsale.database.migrations import migrate
from flashsale.errors import UserError
from flashsale.shards.databases import Database, address, read_owned


def add(url: str, others: Sequence[Database], say: Callable[[str], None]) -> None:
    """Make a database a shard of the shop that the others are. Repeated, it changes nothing.

    :raises UserError: with what to change
    """
    slots = _slots_of(others)
    if slots == 1:
        raise UserError(
            "the shop has one slot, which all ids are of: it stays on one database. The number is chosen when"
            " a shop is first migrated: flashsale migrate --slots 16"
        )
    with _connect(url) as conn:
        _check_is_new(conn, slots, others)
    migrate(url, say=say, slots=slots, owned=[])
    with connect("shard add", others[0].url) as first, connect("shard add", url) as conn:
        copy_settings(first, conn)
    say(f"{address(url)} has {slots} slots and owns none of them")


def _slots_of(others: Sequence[Database]) -> int:
    counts = {read_owned("shard add", other.url).slots for other in others}
    if len(counts) > 1:
        raise UserError("the shards have different numbers of slots; see: flashsale doctor")
    return counts.pop()


def _connect(url: str) -> psycopg.Connection:
    try:
        return connect("shard add", url)
    except psycopg.OperationalError as error:
        raise UserError(describe_error(error)) from error


def _check_is_new(conn: psycopg.Connection, slots: int, others: Sequence[Database]) -> None:
    """Refuse a database that is one of the others, or has a shop of its own."""
    here = _identity(conn)
    for other in others:
        with connect("shard add", other.url) as known:
            if _identity(known) == here:
                raise UserError(f"this is the database of shard {other.name}")
    if fetch_value(conn, "select to_regprocedure('flashsale.get_shard()') is null"):
        if fetch_value(conn, "select to_regnamespace('flashsale_data') is null"):
            return
        raise UserError("the database has an older version of flashsale: a shop of its own, or part of one")
    found, owned = fetch_row(conn, "select slots, owned from flashsale.get_shard()")
    has_products = fetch_value(conn, "select exists (select from flashsale.list_stock(p_tests => true))")
    if has_products or (found, owned) not in ((1, [0]), (slots, [])):
        raise UserError("the database has a shop of its own, or owns slots: a new shard is an empty database")


def _identity(conn: psycopg.Connection) -> tuple[object, ...]:
    """What tells one database from all others, however it is reached."""
    row: tuple[object, ...] = fetch_row(
        conn,
        "select system_identifier, (select oid from pg_database where datname = current_database())"
        " from pg_control_system()",
    )
    return row


def copy_settings(source: psycopg.Connection, target: psycopg.Connection) -> None:
    """Give one shard the settings of another: a product that moves must not meet others."""
    cursor = source.execute("select * from flashsale.settings")
    values = cursor.fetchone()
    assert values is not None and cursor.description is not None  # noqa: S101 - a view of one row
    arguments = sql.SQL(", ").join(
        sql.SQL("{} => %s").format(sql.Identifier(f"p_{column.name}")) for column in cursor.description
    )
    target.execute(sql.SQL("select from flashsale.change_settings({})").format(arguments), values)
