"""A short hold time and payment window for the duration of a rehearsal.

These settings apply to all products; left short, they would ruin the real sale. Therefore a separate process
changes them and restores them when its standard input is closed, which also happens when the rehearsal is
killed.
"""

import json
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta

import psycopg

from flashsale.database.connection import connect
from flashsale.errors import UserError

RESTORE_TIMEOUT_SECONDS = 300
"""seconds for which restoring is retried while the database is unreachable"""

_CHANGE = "select flashsale.change_settings(make_interval(secs => %s), make_interval(secs => %s))"


@contextmanager
def temporary_settings(seconds: float, url: str, before: tuple[timedelta, timedelta]) -> Iterator[None]:
    """Set the hold time and the payment window of every product to `seconds`.

    :param url: libpq URL of an operator
    :param before: hold time and payment window to restore
    :raises UserError: they could not be changed, or not be restored
    """
    child = subprocess.Popen(
        [sys.executable, "-m", "flashsale.rehearsal.temporary_settings"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        start_new_session=True,  # out of reach of a terminal's Ctrl-C
    )  # fmt: skip
    assert child.stdin and child.stdout  # noqa: S101 - both are pipes
    task = {"url": url, "short": seconds, "before": [duration.total_seconds() for duration in before]}
    try:
        # By the pipe, because other users can read the arguments, and the URL may contain a password.
        child.stdin.write(json.dumps(task) + "\n")
        child.stdin.flush()
        if not child.stdout.readline():
            raise UserError("the hold time could not be changed")
        yield
    finally:
        child.stdin.close()
        child.stdout.close()
        if child.wait() != 0:
            hold_time, payment_window = before
            raise UserError(
                "the hold time and the payment window may still be short; restore them with:"
                f" select flashsale.change_settings('{hold_time.total_seconds():g} s',"
                f" '{payment_window.total_seconds():g} s')"
            )


def main() -> None:
    """Change the settings, print a line, wait for the end of standard input, restore them."""
    task = json.loads(sys.stdin.readline())
    try:
        with connect("rehearse", task["url"]) as conn:
            conn.execute(_CHANGE, (task["short"], task["short"]))
        print("changed", flush=True)
        sys.stdin.read()
    finally:
        _restore(task["url"], task["before"])


def _restore(url: str, before: Sequence[float]) -> None:
    deadline = time.monotonic() + RESTORE_TIMEOUT_SECONDS
    while True:
        try:
            with connect("rehearse", url) as conn:
                conn.execute(_CHANGE, before)
            return
        except psycopg.OperationalError:
            if time.monotonic() > deadline:
                raise
            time.sleep(1)


if __name__ == "__main__":
    main()
