"""Every test shares one database, emptied before each. After each the books must balance, unless the test has
taken a guard out."""

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from typing import Any

import psycopg
import pytest

from tests.support import ROOT
from tests.support.database import emptied_database
from tests.support.guards import replaced
from tests.support.sql_calls import audit, create_product, outcome
from tests.support.waiting import wait_until_blocked

shared, postgresql = emptied_database("flashsale_sql")


@pytest.fixture(autouse=True)
def books_balance(request: pytest.FixtureRequest, db: psycopg.Connection) -> Iterator[None]:
    yield
    if "without" not in request.fixturenames:
        assert audit(db) == []


@pytest.fixture
def product(db: psycopg.Connection) -> int:
    """A product with 10 units at 99.00 USD."""
    return create_product(db)


@pytest.fixture
def first(connect: Callable[..., psycopg.Connection]) -> psycopg.Connection:
    """A caller in the middle of a transaction, which keeps what it locks until commit() or rollback()."""
    return connect(autocommit=False)


@pytest.fixture
def second(connect: Callable[..., psycopg.Connection]) -> psycopg.Connection:
    """A caller who comes after the first, and commits each call."""
    return connect()


@pytest.fixture
def meanwhile(db: psycopg.Connection) -> Iterator[Callable[..., Future]]:
    """meanwhile(f, *args) runs f in a thread; .result() joins it."""
    with ThreadPoolExecutor(max_workers=64) as pool:
        started: list[Future] = []

        def start(function: Callable, *args: object, **options: object) -> Future:
            started.append(pool.submit(function, *args, **options))
            return started[-1]

        yield start
        if not all(future.done() for future in started):
            db.execute(
                "select pg_terminate_backend(pid) from pg_stat_activity"
                " where datname = current_database() and pid <> pg_backend_pid()"
            )


@pytest.fixture
def blocked(db: psycopg.Connection, meanwhile: Callable[..., Future]) -> Callable[..., Future]:
    """blocked(f, conn, *args) runs f(conn, *args) in a thread, and returns once it waits for a lock.

    The result is what f returns, or the SQLSTATE it raises.
    """

    def start(call: Callable, conn: psycopg.Connection, *args: object) -> Future:
        future = meanwhile(outcome, call, conn, *args)
        wait_until_blocked(conn, watcher=db)
        return future

    return start


@pytest.fixture
def at_once(connect: Callable, meanwhile: Callable[..., Future]) -> Callable[..., list[Any]]:
    """at_once(f, [args, ...]) runs f(connection, *args) for each at the same moment, each on a connection of
    its own as a caller of the public functions; returns their outcomes in order."""

    def run(call: Callable, arguments: list[tuple], **options: object) -> list[Any]:
        conns = [connect("flashsale_app", **options) for _ in arguments]
        barrier = Barrier(len(conns))

        def one(conn: psycopg.Connection, args: tuple) -> Any:
            barrier.wait()
            return outcome(call, conn, *args)

        futures = [meanwhile(one, conn, args) for conn, args in zip(conns, arguments, strict=True)]
        return [future.result() for future in futures]

    return run


@pytest.fixture
def without(db: psycopg.Connection) -> Iterator[Callable[..., None]]:
    """without(guard, replacement, ...) replaces a guard of the SQL until the test ends.

    For controls: what a test is about must then go wrong. See tests/support/guards.py.
    """

    changed: list[Path] = []

    def replace_guard(guard: str, *replacements: str) -> None:
        for path, text in replaced(ROOT, guard, replacements).items():
            changed.append(path)
            db.execute(text)

    yield replace_guard
    for path in changed:
        db.execute((ROOT / path).read_text())
