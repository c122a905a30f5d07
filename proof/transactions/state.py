"""The tables at the end of a round, with the rows that were deleted in it."""

from collections import defaultdict
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import psycopg

from proof.tables import EMPTY
from tests.support import sql_calls as calls

# purge(), the sweep and a reused key delete rows; the oracle checks which.
ARCHIVE = """
create schema proof;
create table proof.removed (table_name text, removed_at timestamptz, removed jsonb);
create function proof.archive() returns trigger language plpgsql security definer as $$
begin
  insert into proof.removed select tg_table_name, clock_timestamp(), to_jsonb(o) from old_rows o;
  return null;
end $$;
"""
TRIGGER = """
create trigger archive after delete on flashsale_data.{} referencing old table as old_rows
for each statement execute function proof.archive()
"""
INSTANTS = ("at", "expires_at", "payment_due_at", "placed_at", "created_at", "received_at")
ARCHIVED = ("holds", "orders", "payments", "events")
RESET = f"{EMPTY}; truncate proof.removed"

Row = dict[str, Any]


def archive_removed(conn: psycopg.Connection) -> None:
    """From now on, deleted rows are archived by the transaction that deletes them."""
    conn.execute(ARCHIVE)
    for table in ARCHIVED:
        conn.execute(TRIGGER.format(table))


def reset(conn: psycopg.Connection) -> None:
    """Empty the tables and the archive."""
    conn.execute(RESET)
    conn.execute("vacuum")


@dataclass(frozen=True)
class State:
    """Rows as dictionaries, with instants in seconds since 1970.

    :param removed: by table, the archived rows; `removed_at` is when
    :param refunds: by key, the rows of refunds_due
    :param carried: ledger_carried by product
    :param inbox: the counter
    """

    holds: dict[int, Row]
    orders: dict[int, Row]
    payments: dict[str, Row]
    events: list[Row]
    stock: dict[int, Row]
    carried: dict[int, int]
    inbox: int
    refunds: dict[str, list[Any]]
    removed: dict[str, list[Row]]

    @property
    def all_holds(self) -> dict[int, Row]:
        """With those that were removed."""
        return {row["hold_id"]: row for row in self.removed["holds"]} | self.holds

    @property
    def all_orders(self) -> dict[int, Row]:
        """With those that were removed."""
        return {row["order_id"]: row for row in self.removed["orders"]} | self.orders

    @property
    def ledger(self) -> list[Row]:
        """Every committed event by id, with those that were removed."""
        return sorted(self.events + self.removed["events"], key=lambda event: event["event_id"])


def read_state(conn: psycopg.Connection) -> State:
    """The state of a database in which no transaction is open."""
    removed = defaultdict(list)
    for table, at, row in conn.execute("select table_name, removed_at, removed from proof.removed"):
        removed[table].append(_with_seconds(row) | {"removed_at": at.timestamp()})
    refunds = defaultdict(list)
    for row in calls.rows(conn, "table flashsale.refunds_due"):
        refunds[row.idempotency_key].append(row)
    return State(
        holds={row["hold_id"]: row for row in _rows(conn, "holds")},
        orders={row["order_id"]: row for row in _rows(conn, "orders")},
        payments={row["idempotency_key"]: row for row in _rows(conn, "payments")},
        events=_rows(conn, "events"),
        stock={row["product_id"]: row for row in _rows(conn, "stock")},
        carried={row["product_id"]: row["available_delta"] for row in _rows(conn, "ledger_carried")},
        inbox=calls.value(conn, "select stored from flashsale_data.inbox"),
        refunds=refunds,
        removed=removed,
    )


def _rows(conn: psycopg.Connection, table: str) -> list[Row]:
    return [
        _with_seconds(row) for (row,) in conn.execute(f"select to_jsonb(t) from flashsale_data.{table} t")
    ]


def _with_seconds(row: Row) -> Row:
    return {
        name: datetime.fromisoformat(value).timestamp() if value and name in INSTANTS else value
        for name, value in row.items()
    }
