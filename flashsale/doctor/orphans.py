"""What a client left behind in the server when it went away, and what it holds there."""

from psycopg import sql

from flashsale.database.connection import Connection
from flashsale.doctor.finding import Finding, Findings

MINUTES = 10
"""for which a prepared transaction may wait for its commit"""

_PREPARED = """
    select gid, owner::text, to_char(prepared at time zone 'UTC', 'YYYY-MM-DD HH24:MI:SS"Z"')
      from pg_prepared_xacts
     where database = current_database() and prepared < clock_timestamp() - make_interval(mins => %s)
     order by prepared, gid
"""
_SLOTS = """
    select slot_name::text,
           case when not pg_is_in_recovery()
                then pg_size_pretty(pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn)) end
      from pg_replication_slots
     where not active and not temporary and (database is null or database = current_database())
     order by 1
"""


def orphans(conn: Connection, minutes: float = MINUTES) -> Findings:
    """Whether a prepared transaction or a replication slot has no client any more.

    A prepared transaction keeps its locks: its products stay locked, and read_events() stops before what it
    may still commit. A slot keeps the log, until the disk is full.
    """
    findings = []
    for gid, owner, since in conn.execute(_PREPARED, (minutes,)).fetchall():
        findings.append(
            Finding(
                "orphans", "failed",
                f"prepared transaction {gid} of role {owner} has kept its locks since {since}, and stops the"
                " readers of the ledger",
                f"rollback prepared {sql.Literal(gid).as_string(conn)}",
            )
        )  # fmt: skip
    for slot, size in conn.execute(_SLOTS).fetchall():
        findings.append(
            Finding(
                "orphans", "warning",
                f"replication slot {slot} has no reader, and keeps {size or 'part'} of the log",
                "start its reader, or, if there is none any more: select"
                f" pg_drop_replication_slot({sql.Literal(slot).as_string(conn)})",
            )
        )  # fmt: skip
    yield from findings or [Finding("orphans", "ok", "no client has left a transaction or a slot behind")]
