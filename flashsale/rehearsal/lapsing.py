"""Holds and orders that lapse soon, for as long as the rehearsal lasts.

The settings are those of the whole shop: left short, they would ruin the sale that was rehearsed. Therefore a
process of its own shortens them, and puts them back as soon as nobody holds its standard input open any more:
when the rehearsal is over, and just as well when it was killed.
"""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import psycopg

from flashsale.errors import Refusal

PATIENCE = 300
"""seconds for which putting the settings back is tried, should the database be away"""

_CHANGE = "select flashsale.change_settings(make_interval(secs => %s), make_interval(secs => %s))"


@contextmanager
def lapsing_after(seconds: float, url: str, before: tuple[timedelta, timedelta]) -> Iterator[None]:
    """Have holds and orders of every product lapse after so many seconds.

    :param url: libpq URL of an operator
    :param before: hold time and payment window to put back
    :raises Refusal: they could not be changed, or not be put back
    """
    child = subprocess.Popen(
        [sys.executable, "-m", "flashsale.rehearsal.lapsing"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        start_new_session=True,  # a Ctrl-C is for the rehearsal
    )  # fmt: skip
    task = {"url": url, "short": seconds, "before": [span.total_seconds() for span in before]}
    try:
        # Not among the arguments, where everybody on this machine would see a password.
        child.stdin.write(json.dumps(task) + "\n")
        child.stdin.flush()
        if not child.stdout.readline():
            raise Refusal("the hold time could not be shortened")
        yield
    finally:
        child.stdin.close()
        child.stdout.close()
        if child.wait() != 0:
            hold_time, window = before
            raise Refusal(
                "the hold time and the payment window may still be short; put them back with:"
                f" select flashsale.change_settings('{hold_time.total_seconds():g} s',"
                f" '{window.total_seconds():g} s')"
            )


def main() -> None:
    """Shorten, say so, wait for the end of standard input, put back."""
    task = json.loads(sys.stdin.readline())
    try:
        with psycopg.connect(task["url"], autocommit=True) as conn:
            conn.execute(_CHANGE, (task["short"], task["short"]))
        print("short", flush=True)
        sys.stdin.read()
    finally:
        _put_back(task["url"], task["before"])


def _put_back(url: str, before: list[float]) -> None:
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            with psycopg.connect(url, autocommit=True, connect_timeout=10) as conn:
                conn.execute(_CHANGE, before)
            return
        except psycopg.OperationalError:
            if time.monotonic() > deadline:
                raise
            time.sleep(1)


if __name__ == "__main__":
    main()
