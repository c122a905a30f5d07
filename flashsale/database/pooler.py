"""Poolers that give the transactions of one connection to several sessions of the server."""

from psycopg import errors

from flashsale.database.connection import Connection, connect, fetch_value

_PROBES = 5
_PID = "select pg_backend_pid()"


def shares_sessions(conn: Connection, url: str) -> bool:
    """Whether `conn`, made by `url`, leads through a pooler in transaction or statement mode.

    What such a connection sets or locks stays with a session that other clients get next.
    """
    pid = fetch_value(conn, _PID)
    # The number that came with the connection is the server's own, unless a pooler stands in between.
    if pid == conn.info.backend_pid:
        return False
    # A pooler in session mode keeps the session for this connection. Otherwise the session is free between
    # two statements: another connection gets it, or this one gets another.
    for _ in range(_PROBES):
        with connect("migrate", url) as other:
            try:
                with other.transaction():
                    if fetch_value(other, _PID) == pid or fetch_value(conn, _PID) != pid:
                        return True
            except errors.ProtocolViolation:
                return True  # statement mode has no transactions
    return False
