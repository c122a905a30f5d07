"""Two shards of a shop of four slots, emptied before each test: `source` has slots 0 and 1, `target` 2 and 3.
After each test the books of both balance."""

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import psycopg
import pytest
from pytest_postgresql.executors import NoopExecutor
from pytest_postgresql.janitor import DatabaseJanitor

from flashsale.local.cluster import Cluster
from tests.support.database import emptied_database, empty, seeded_rows
from tests.support.sql_calls import audit, outcome, row
from tests.support.waiting import wait_until_blocked

TARGET = "flashsale_target"

shared, postgresql = emptied_database("flashsale_source")


@pytest.fixture(scope="session")
def target_database(template: NoopExecutor, cluster: Cluster) -> Iterator[tuple[str, dict[str, list]]]:
    with DatabaseJanitor(
        user=template.user, host=template.host, port=template.port, dbname=TARGET,
        template_dbname=template.template_dbname,
    ):  # fmt: skip
        url = cluster.url(template.user, TARGET)
        with psycopg.connect(url) as conn:
            seeded = seeded_rows(conn)
        yield url, seeded


@pytest.fixture
def source(request: pytest.FixtureRequest, db: psycopg.Connection) -> Iterator[psycopg.Connection]:
    row(db, "select * from flashsale.set_shard(4, '{0, 1}')")
    yield db
    if "broken" not in request.fixturenames:
        assert audit(db) == []


@pytest.fixture
def target(target_database: tuple[str, dict[str, list]]) -> Iterator[psycopg.Connection]:
    url, seeded = target_database
    with psycopg.connect(url) as conn:
        empty(conn, seeded)
    with psycopg.connect(url, autocommit=True) as conn:
        row(conn, "select * from flashsale.set_shard(4, '{2, 3}')")
        yield conn
        assert audit(conn) == []


@pytest.fixture
def broken() -> None:
    """For tests that corrupt a database."""


@pytest.fixture
def blocked(db: psycopg.Connection) -> Iterator[Callable[..., Future]]:
    """blocked(f, conn, *args) runs f(conn, *args) in a thread, and returns once it waits for a lock.

    The result is what f returns, or the SQLSTATE it raises.
    """
    with ThreadPoolExecutor(max_workers=4) as pool:

        def start(call: Callable, conn: psycopg.Connection, *args: object) -> Future:
            future = pool.submit(outcome, call, conn, *args)
            try:
                wait_until_blocked(conn, watcher=db, timeout=5)
            except AssertionError:
                conn.cancel()
                raise
            return future

        yield start
