"""Moves slots from one shard to another, while they are sold.

A slot is first copied while it is sold on; then its products stand still until the target has what has
changed since, and takes over. In between no shard owns it; at no instant do two. Each step is a function
(sql/operators/export_slot.sql), and where a move stands is in the databases: started again after whatever has
interrupted it, the command goes on from there.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from typing import Any, NamedTuple
from uuid import UUID

import psycopg
from psycopg import errors
from psycopg.rows import class_row

from flashsale.database.connection import Connection, connect, describe_error, fetch_value
from flashsale.errors import UserError
from flashsale.shards.databases import Database

LOCK_TIMEOUT = "1s"
"""for each lock of a slot's products: while the move waits for one, the others stand still"""
ATTEMPTS = 10
"""of a move that meets a locked product"""

_EXPORT = "select move_id, table_name, part, rows from flashsale.export_slot(%s::int)"
_EXPORT_CHANGES = (
    "select move_id, table_name, part, rows from flashsale.export_slot_changes(%s::int, %s::uuid)"
)
_RECEIVE = "select from flashsale.receive_slot(%s::int, %s::uuid, %s, %s::int, %s)"
_LOAD = "select flashsale.load_slot(%s::int, %s::uuid)"
_GIVE_UP = "select from flashsale.give_up_slot(%s::int, %s::uuid)"
_OWN = "select from flashsale.own_slot(%s::int, %s::uuid)"
_CLEAR = "select flashsale.clear_slot(%s::int)"
_SERVERS = """
    select count(*) from pg_stat_activity
     where datname = current_database() and application_name like 'flashsale % fast'
"""


class SlotState(NamedTuple):
    """A slot as one shard sees it: a row of the view slots."""

    slot: int
    owned: bool
    products: int
    departed_move_id: UUID | None
    departed_at: Any
    arriving_move_id: UUID | None
    is_complete: bool


class Step(NamedTuple):
    """What is to be done for a slot.

    :param source: its owner; None if it has been given up already, and only needs to be taken over
    :param move_id: under which it was given up
    :param products: that move
    """

    slot: int
    source: Database | None
    move_id: UUID | None
    products: int


class Moved(NamedTuple):
    """A slot that has moved.

    :param source: None if an earlier run has begun the move
    :param stood_still: seconds for which its products were not sold; None if that is not known
    """

    slot: int
    source: str | None
    target: str
    stood_still: float | None


def read_slots(database: Database) -> list[SlotState]:
    """:raises psycopg.Error:"""
    with connect("shard move", database.url) as conn:
        cursor = conn.cursor(row_factory=class_row(SlotState))
        return cursor.execute(
            "select slot, owned, products, departed_move_id, departed_at, arriving_move_id, is_complete"
            " from flashsale.slots order by slot"
        ).fetchall()


def plan(slots: Sequence[int], target: Database, among: Sequence[Database]) -> list[Step]:
    """What moving these slots takes; those that the target owns are left out.

    :raises UserError: not all shards can be read, or a slot has two owners, or has been given up to another
    """
    try:
        states = {database: read_slots(database) for database in among}
    except psycopg.Error as error:
        raise UserError(f"all shards must be reachable: {describe_error(error)}") from error
    counts = {len(found) for found in states.values()}
    if len(counts) > 1:
        raise UserError("the shards have different numbers of slots; see: flashsale doctor")
    count = counts.pop()
    if count == 1:
        raise UserError("the shop has one slot, which stays where it is; see docs/shards.md")
    if beyond := [slot for slot in slots if slot >= count]:
        raise UserError(f"there is no slot {beyond[0]}: they are 0 to {count - 1}")
    steps = [
        _step(slot, target, {database: found[slot] for database, found in states.items()}) for slot in slots
    ]
    return [step for step in steps if step is not None]


def _step(slot: int, target: Database, states: dict[Database, SlotState]) -> Step | None:
    owners = [database for database, state in states.items() if state.owned]
    if len(owners) > 1:
        names = " and ".join(owner.name for owner in owners)
        raise UserError(f"slot {slot} is owned by {names}; see: flashsale doctor")
    if owners == [target]:
        return None
    if owners:
        return Step(slot, owners[0], None, states[owners[0]].products)
    departed = {state.departed_move_id for state in states.values()} - {None}
    received = {
        database: state
        for database, state in states.items()
        if state.is_complete and state.arriving_move_id in departed
    }
    if target in received:
        return Step(slot, None, received[target].arriving_move_id, 0)
    if received:
        names = ", ".join(database.name for database in received)
        raise UserError(f"slot {slot} is on its way to {names}: finish that move first, with --to {names}")
    raise UserError(f"no shard owns slot {slot}, and none has received it: is a database missing?")


def check_servers(source: Database, target: Database) -> None:
    """Refuse if HTTP servers sell from the source that are not connected to the target.

    :raises UserError:
    """
    with connect("shard move", source.url) as conn, connect("shard move", target.url) as other:
        if fetch_value(conn, _SERVERS) and not fetch_value(other, _SERVERS):
            raise UserError(
                f"HTTP servers are connected to {source.name}, but none to {target.name}: they could not sell"
                " what has moved there. Restart them with all databases in FLASHSALE_DATABASE_URLS, or move"
                " with --force"
            )


def move(step: Step, target: Database, say: Callable[[str], None]) -> Moved:
    """Move one slot.

    :param say: called with what delays it
    :raises UserError: one of its products stays locked
    :raises psycopg.Error: repeat the command
    """
    if step.source is None:
        with connect("shard move", target.url) as conn:
            conn.execute(_OWN, (step.slot, step.move_id))
        return Moved(step.slot, None, target.name, None)
    for attempt in range(1, ATTEMPTS + 1):
        try:
            stood_still = _transfer(step.slot, step.source, target)
            return Moved(step.slot, step.source.name, target.name, stood_still)
        except (errors.LockNotAvailable, errors.DeadlockDetected) as error:
            if attempt == ATTEMPTS:
                raise UserError(
                    f"a product of slot {step.slot} stays locked by an open transaction; pg_stat_activity of"
                    f" {step.source.name} shows which are open. The slot is sold on there"
                ) from error
            say(f"slot {step.slot}: a product is locked; trying again")
    raise AssertionError("unreachable")


def _transfer(slot: int, from_: Database, to: Database) -> float:
    """The steps of a move; returns the seconds of standstill."""
    with ExitStack() as stack:
        source, receiver, loader = (
            stack.enter_context(connect("shard move", url)) for url in (from_.url, to.url, to.url)
        )
        with loader.transaction():
            with source.transaction():
                source.execute("select set_config('lock_timeout', %s, true)", (LOCK_TIMEOUT,))
                move_id = None
                for part in _stream(source, _EXPORT, (slot,)):
                    move_id = part[0]
                    receiver.execute(_RECEIVE, (slot, *part))
                loader.execute(_LOAD, (slot, move_id))
                began = time.monotonic()
                for part in _stream(source, _EXPORT_CHANGES, (slot, move_id)):
                    receiver.execute(_RECEIVE, (slot, *part))
                loader.execute(_LOAD, (slot, move_id))
                source.execute(_GIVE_UP, (slot, move_id))
            # Committed: no shard owns the slot until the target does.
            loader.execute(_OWN, (slot, move_id))
        return time.monotonic() - began


def _stream(conn: Connection, query: str, parameters: Sequence[object]) -> Iterator[tuple[Any, ...]]:
    """The rows of a query, none of which is kept: a part of a slot has megabytes."""
    with conn.cursor() as cursor:
        yield from cursor.stream(query, parameters)


def clear(slots: Sequence[int], among: Sequence[Database]) -> int:
    """Delete what moved slots have left where they were; returns the number of rows."""
    cleared = 0
    for database in among:
        left = [
            state.slot
            for state in read_slots(database)
            if state.slot in slots and not state.owned and state.products and state.departed_move_id
        ]
        if left:
            with connect("shard move", database.url) as conn:
                for slot in left:
                    cleared += int(fetch_value(conn, _CLEAR, (slot,)))
    return cleared
