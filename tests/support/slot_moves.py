"""A slot's move between two databases, step by step, as `flashsale shard move` takes it."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg

from tests.support.sql_calls import row, rows, value


def owned(conn: psycopg.Connection) -> list[int]:
    return row(conn, "select * from flashsale.get_shard()").owned


def slot_of(conn: psycopg.Connection, slot: int) -> Any:
    """The slot as this shard sees it."""
    return row(conn, "select * from flashsale.slots where slot = %s", slot)


def export(source: psycopg.Connection, slot: int) -> list[Any]:
    """Step 1, in the transaction of the source."""
    return rows(source, "select * from flashsale.export_slot(%s)", slot)


def export_changes(source: psycopg.Connection, slot: int, move_id: object) -> list[Any]:
    """Step 4: the slot stands still."""
    return rows(source, "select * from flashsale.export_slot_changes(%s, %s)", slot, move_id)


def receive(target: psycopg.Connection, slot: int, parts: list[Any]) -> None:
    """Steps 2 and 5."""
    for part in parts:
        value(target, "select flashsale.receive_slot(%s, %s, %s, %s::int, %s)", slot, *part)


def load(target: psycopg.Connection, slot: int, move_id: object) -> int:
    """Steps 3 and 5, in the transaction of own()."""
    return value(target, "select flashsale.load_slot(%s, %s)", slot, move_id)


def give_up(source: psycopg.Connection, slot: int, move_id: object) -> None:
    """Step 6, in the transaction of the source."""
    value(source, "select flashsale.give_up_slot(%s, %s)", slot, move_id)


def own(target: psycopg.Connection, slot: int, move_id: object) -> None:
    """Step 7."""
    value(target, "select flashsale.own_slot(%s, %s)", slot, move_id)


def clear(source: psycopg.Connection, slot: int) -> int:
    """Step 8."""
    return value(source, "select flashsale.clear_slot(%s)", slot)


@contextmanager
def exported(source: psycopg.Connection, target: psycopg.Connection, slot: int) -> Iterator[Any]:
    """Steps 1, 2, 4 and 5 without loading; yields the move_id in the source's transaction, then commits."""
    with source.transaction():
        parts = export(source, slot)
        receive(target, slot, parts)
        move_id = parts[-1].move_id
        receive(target, slot, export_changes(source, slot, move_id))
        yield move_id


def move(source: psycopg.Connection, target: psycopg.Connection, slot: int) -> None:
    """The whole move; connections in autocommit."""
    with exported(source, target, slot) as move_id:
        give_up(source, slot, move_id)
    own(target, slot, move_id)
    clear(source, slot)
