"""A session before its first call: on the primary, a backend of its own, with the settings it depends on."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest

from api.database import connection as connections
from api.database import functions, session
from api.database.connection import FunctionConnection
from api.database.errors import RolledBack, Unavailable
from api.database.prepared_statement import PreparedCall
from api.database.session import PINNED, READ_ONLY, STANDBY, TRANSACTION_POOLER
from flashsale.local.cluster import DATABASE, SUPERUSER, Cluster
from tests.support import servers
from tests.support.clusters import standby_of
from tests.support.http import running_server
from tests.support.poolers import pooler
from tests.support.sale_steps import create_product, hold_status, one, place_hold
from tests.support.shops import ROLE, pool_settings, running_shop
from tests.support.waiting import wait_until

NOT_PINNED = {
    # The HTTP server has its own, by connection; a command may take as long as it needs.
    "lock_timeout", "statement_timeout",
    # A brake of the operator: writes are refused with its name.
    "default_transaction_read_only",
    # Of the current transaction.
    "transaction_deferrable", "transaction_isolation", "transaction_read_only",
    # Messages that are not parsed.
    "client_min_messages", "lc_messages",
    # Where and how data is kept, not what it is; and when it is vacuumed.
    "default_tablespace", "default_toast_compression", "temp_tablespaces", "gin_pending_list_limit",
    "gin_fuzzy_search_limit", "vacuum_failsafe_age", "vacuum_freeze_min_age", "vacuum_freeze_table_age",
    "vacuum_multixact_failsafe_age", "vacuum_multixact_freeze_min_age", "vacuum_multixact_freeze_table_age",
    "vacuum_cleanup_index_scale_factor", "synchronize_seqscans",
    # No function formats or parses by them.
    "default_text_search_config", "icu_validation_level", "lc_monetary", "lc_numeric", "lc_time",
    "timezone_abbreviations", "xmlbinary", "lo_compat_privileges",
    # Bodies are checked by the loader itself, in the order that it needs.
    "check_function_bodies",
    # What is loaded into a session, and rights of roles that it creates.
    "createrole_self_grant", "dynamic_library_path", "local_preload_libraries", "session_preload_libraries",
    # Only a superuser can set them; doctor examines the first.
    "session_replication_role", "extension_control_path", "event_triggers",
}  # fmt: skip
SEMANTIC = (
    "Client Connection Defaults%",
    "Version and Platform Compatibility%",
    "Error Handling",
)


def test_every_setting_that_can_change_what_is_read_or_written_is_considered(db):
    settings = db.execute(
        "select name, context from pg_settings where category like any (%s)"
        " and context in ('user', 'superuser')",
        (list(SEMANTIC),),
    ).fetchall()
    ours = {name.lower(): context for name, context in settings}
    assert ours.keys() - PINNED.keys() - NOT_PINNED == set()
    assert NOT_PINNED & PINNED.keys() == set()
    assert {name for name in PINNED if ours.get(name) == "superuser"} == set(), "which others cannot set"


ODD = {
    "array_nulls": "off",
    "bytea_output": "escape",
    "client_encoding": "LATIN1",
    "datestyle": "German",
    "default_transaction_isolation": "serializable",
    "exit_on_error": "on",
    "extra_float_digits": "-5",
    "idle_session_timeout": "1s",
    "intervalstyle": "sql_standard",
    "plpgsql.extra_errors": "all",
    "quote_all_identifiers": "on",
    "search_path": "",
    "standard_conforming_strings": "off",
    "timezone": "Asia/Tokyo",
    "transform_null_equals": "on",
}


@pytest.fixture
def odd(db: psycopg.Connection, database_url: str) -> Iterator[str]:
    """A URL of the role of the server, in a database with settings of another application."""
    name = db.info.dbname
    for setting, value in ODD.items():
        db.execute(f"alter database {name} set {setting} to '{value}'")
    yield psycopg.conninfo.make_conninfo(database_url, user="flashsale_app")
    db.execute(f"alter database {name} reset all")


def test_settings_of_the_database_do_not_reach_the_server(odd, db, tmp_path):
    db.execute("set array_nulls = on")
    create_product(db, stock=50)
    with running_server(odd, tmp_path / "log") as base, httpx.Client(base_url=base) as client:
        assert client.get("/readyz").json()["status"] == "ready"
        first = client.post("/api/holds", json={"product_id": 1, "qty": 1})
        second = client.post("/api/holds", json={"product_id": 1, "qty": 2})
        assert [first.status_code, second.status_code] == [201, 201], "no key is not the key NULL"
        assert first.json()["expires_at"].endswith("Z")
        assert client.get("/api/products/1").json()["available_stock"] == 47
        assert client.get("/api/products").json()[0]["available_stock"] == 47
        order = client.post("/api/orders", json={"hold_id": first.json()["hold_id"]}).json()
        webhook = {"idempotency_key": "p", "order_id": order["order_id"], "status": "success"}
        paid = client.post("/api/payments/webhook", json=webhook | {"amount": "9x9", "currency": "USD"})
        assert paid.status_code == 422
        paid = client.post("/api/payments/webhook", json=webhook | {"amount": "99.00", "currency": "USD"})
        assert paid.json()["result"] == "applied"
    keys = db.execute("select count(idempotency_key) from flashsale_data.holds").fetchone()
    assert keys == (0,)


def call(url: str, function: functions.Function[Any], *requests: tuple[Any, ...], writes: bool = True) -> Any:
    """The rows of one call over a connection that is opened for it."""

    async def run() -> Any:
        one = FunctionConnection(url, "test", function, lock_timeout_ms=100, writes=writes)
        try:
            return await one.call(requests)
        finally:
            await one.close()

    return asyncio.run(run())


def test_a_read_only_database_refuses_writes_by_name_and_serves_reads(db, database_url, tmp_path):
    product = create_product(db)
    with db.transaction():
        db.execute(f"alter database {db.info.dbname} set default_transaction_read_only = on")
    try:
        with pytest.raises(Unavailable, match=READ_ONLY):
            call(database_url, functions.PLACE_HOLDS, (product, 1, None))
        (row,) = call(database_url, functions.GET_PRODUCTS, (product,), writes=False)
        assert row.available_stock == 10
        with running_server(database_url, tmp_path / "log") as base, httpx.Client(base_url=base) as client:
            refused = client.post("/api/holds", json={"product_id": product, "qty": 1})
            assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
            assert client.get(f"/api/products/{product}").status_code == 200
            ready = client.get("/readyz")
            assert (ready.status_code, "default_transaction_read_only" in ready.json()["detail"]) == (
                503,
                True,
            )
            db.execute(f"alter database {db.info.dbname} reset default_transaction_read_only")
            wait_until(
                lambda: client.post("/api/holds", json={"product_id": product, "qty": 1}).status_code == 201,
                "writes are served",
            )
    finally:
        db.execute(f"alter database {db.info.dbname} reset default_transaction_read_only")


@pytest.fixture(scope="module")
def shop() -> Iterator[Cluster]:
    with running_shop() as cluster:
        yield cluster


@pytest.mark.slow
def test_a_standby_is_refused(shop: Cluster, tmp_path: Path) -> None:
    with standby_of(shop) as standby:
        url = standby.url(ROLE, DATABASE)
        with pytest.raises(Unavailable, match=STANDBY):
            call(url, functions.GET_PRODUCTS, (1,), writes=False)
        with running_server(url, tmp_path / "log") as base, httpx.Client(base_url=base) as client:
            assert client.get("/api/products/1").status_code == 503
            assert client.get("/api/products").status_code == 503
            ready = client.get("/readyz")
            assert ready.status_code == 503
            assert ready.json()["detail"] == f"no connection to the database: {STANDBY}"


@pytest.mark.slow
@servers.needs("pgbouncer")
def test_a_pooler_in_transaction_mode_is_refused(shop: Cluster, tmp_path: Path) -> None:
    with pooler(shop, "pgbouncer", pool_settings("transaction")) as pool:
        url = pool.url(ROLE)
        with pytest.raises(Unavailable, match=TRANSACTION_POOLER):
            call(url, functions.PLACE_HOLDS, (1, 1, None, None))
        with running_server(url, tmp_path / "log") as base, httpx.Client(base_url=base) as client:
            assert client.post("/api/holds", json={"product_id": 1, "qty": 1}).status_code == 503
            ready = client.get("/readyz")
            assert ready.status_code == 503
            assert ready.json()["detail"] == f"no connection to the database: {TRANSACTION_POOLER}"


@pytest.mark.slow
@servers.needs("pgbouncer")
def test_a_pooler_in_session_mode_has_our_time_limits(shop: Cluster, tmp_path: Path) -> None:
    """It refuses or drops what is sent on connecting."""
    with (
        pooler(shop, "pgbouncer", pool_settings("session")) as pool,
        running_server(pool.url(ROLE), tmp_path / "log") as base,
        httpx.Client(base_url=base) as client,
        psycopg.connect(shop.url(SUPERUSER, DATABASE)) as operator,
    ):
        assert client.get("/readyz").json()["status"] == "ready"
        hold = {"product_id": 1, "qty": 1}
        assert client.post("/api/holds", json=hold).status_code == 201
        operator.execute("select flashsale.adjust_stock(1, 1)")
        busy = client.post("/api/holds", json=hold)
        assert (busy.status_code, busy.json()["code"]) == (503, "busy")
        assert busy.elapsed.total_seconds() < 2
        operator.rollback()


@pytest.mark.slow
@servers.needs("pgbouncer")
def test_a_wrong_statement_cannot_be_called_behind_a_pooler(shop: Cluster, monkeypatch) -> None:
    """Even if the pooler has not been seen: statements are named after their functions."""

    async def unseen(*_: object, **__: object) -> None:
        return None

    monkeypatch.setattr(connections, "establish", unseen)
    with psycopg.connect(shop.url(SUPERUSER, DATABASE), autocommit=True) as db:
        hold = place_hold(db, 1)
        with pooler(shop, "pgbouncer", pool_settings("transaction", size=2)) as pool:
            url = pool.url(ROLE)

            def occupy() -> tuple[psycopg.Connection[Any], int]:
                conn = psycopg.connect(url)
                return conn, one(conn, "select pg_backend_pid()")

            async def look() -> Any:
                """get_holds, on the backend where release_holds is prepared."""
                first, backend = occupy()
                release = FunctionConnection(
                    url, "test", functions.RELEASE_HOLDS, lock_timeout_ms=50, writes=True
                )
                await release.open()
                second, other = occupy()
                assert backend != other
                first.rollback()
                first.close()
                get = FunctionConnection(url, "test", functions.GET_HOLDS, lock_timeout_ms=50, writes=False)
                await get.open()
                first, again = occupy()
                assert again == backend
                second.rollback()
                try:
                    return await get.call([(hold,)])
                finally:
                    first.close()
                    second.close()
                    await release.close()
                    await get.close()

            with pytest.raises(RolledBack) as raised:
                asyncio.run(look())
            assert raised.value.sqlstate == "26000"
        assert hold_status(db, hold) == "active"


def test_a_statement_is_named_after_its_function(database_url) -> None:
    async def names() -> list[tuple[str]]:
        connection = await psycopg.AsyncConnection.connect(database_url, autocommit=True)
        prepared = PreparedCall(connection, "get_holds", tuple)
        await prepared.prepare("select name from pg_prepared_statements")
        try:
            return await prepared.call([])
        finally:
            await prepared.close()

    assert asyncio.run(names()) == [("get_holds",)]


@pytest.mark.parametrize(
    ("pids", "is_shared"),
    [
        ([7, 8], True),  # the other session has got ours
        ([8, 9], True),  # we have got another
        ([8, 7, 9, 8], True),  # other traffic has hidden the first change
        ([8, 7] * session.PROBE_ROUNDS, False),
    ],
)
def test_the_probe_sees_a_backend_that_changes(monkeypatch, database_url, pids, is_shared) -> None:
    answers = iter(pids)

    async def fetch(connection: object, query: str) -> tuple[int]:
        return (next(answers),)

    monkeypatch.setattr(session, "_fetch_row", fetch)

    async def probe() -> bool:
        async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as connection:
            return await session._is_shared(connection, database_url, 7)

    assert asyncio.run(probe()) == is_shared
