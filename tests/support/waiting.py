"""Waiting for a condition or a lock wait, without sleeping for a fixed time."""

import time
from collections.abc import Callable

import psycopg


def wait_until(condition: Callable[[], object], what: str, timeout: float = 30) -> None:
    """Return as soon as `condition()` is true; fail, naming `what`, after `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, f"waited {timeout} s in vain until {what}"
        time.sleep(0.01)


def wait_until_blocked(
    conn: psycopg.Connection | int, *, watcher: psycopg.Connection, timeout: float = 30
) -> None:
    """Return once the session `conn` (or its backend's process id) waits for another session's lock.

    `watcher` is an idle autocommit connection of the same cluster. To have `conn` wait at all, run its
    statement in a thread.
    """
    pid = conn if isinstance(conn, int) else conn.info.backend_pid
    query = "select cardinality(pg_blocking_pids(%s)) > 0"
    wait_until(
        lambda: watcher.execute(query, (pid,)).fetchone()[0], f"backend {pid} waits for a lock", timeout
    )
