"""PostgreSQL 16, 17 and 18: install, upgrade, a whole sale, doctor and audit on each.

`make test-versions` runs the tests of sql/ on them, too.
"""

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from flashsale.database.migrations import apply, migrate
from flashsale.database.seed import APP_ROLE, create_app_role
from flashsale.local.cluster import SUPERUSER, Cluster
from tests.support import servers
from tests.support.clusters import running_cluster
from tests.support.flashsale_up import FLASHSALE
from tests.support.http import running_server
from tests.support.sale_steps import audit, one, order, pay

pytestmark = pytest.mark.slow

SECRET = "whsec_" + "c2VjcmV0" * 6


@pytest.fixture(scope="module", params=servers.versions())
def server(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    """A server with the settings of `make up`."""
    with running_cluster(version=request.param) as cluster:
        with psycopg.connect(cluster.url(SUPERUSER, "postgres")) as conn:
            assert conn.info.server_version // 10000 == int(request.param)
        yield cluster


@pytest.fixture(scope="module")
def shop(server: Cluster) -> str:
    """The superuser's URL of a new database on it, migrated."""
    with psycopg.connect(server.url(SUPERUSER, "postgres"), autocommit=True) as conn:
        conn.execute("create database shop")
    url = server.url(SUPERUSER, "shop")
    migrate(url, say=lambda _: None)
    with psycopg.connect(url, autocommit=True) as conn:
        create_app_role(conn)
    return url


def flashsale(url: str, *arguments: str, status: int = 0) -> str:
    """What the command prints; it must exit with `status`."""
    done = subprocess.run(
        [*FLASHSALE, *arguments],
        env={name: value for name, value in os.environ.items() if not name.startswith("FLASHSALE_")}
        | {"FLASHSALE_DATABASE_URL": url, "FLASHSALE_WEBHOOK_SECRETS": SECRET},
        capture_output=True,
        text=True,
    )
    assert done.returncode == status, done.stdout + done.stderr
    return done.stdout


def test_a_second_migrate_creates_nothing_anew(shop: str) -> None:
    catalog = (
        "select array_agg(oid order by oid) from (select oid, pronamespace from pg_proc"
        " union all select oid, relnamespace from pg_class) as found (oid, namespace)"
        " where namespace::regnamespace::text ~ '^flashsale'"
    )
    with psycopg.connect(shop, autocommit=True) as conn:
        before = one(conn, catalog)
        said: list[str] = []
        migrate(shop, say=said.append)
        assert said[0] == "loaded sql/"
        assert "pg_cron is not loaded" in said[1]
        assert one(conn, catalog) == before


def test_a_sale_goes_on_after_an_upgrade(server: Cluster) -> None:
    """From the first migration that had tables, with a webhook that waits for its order."""
    with psycopg.connect(server.url(SUPERUSER, "postgres"), autocommit=True) as conn:
        conn.execute("create database upgraded")
    url = server.url(SUPERUSER, "upgraded")
    apply(url, "0002.tables", say=lambda _: None)
    with psycopg.connect(url, autocommit=True) as conn:
        conn.execute(
            "insert into flashsale_data.payments"
            " (idempotency_key, order_id, status, payload, received_at, result, order_status)"
            " values ('early', 1, 'success', '{}', now(), 'stored', null);"
            " update flashsale_data.inbox set stored = 1"
        )
        migrate(url, say=lambda _: None)
        product = one(conn, "select flashsale.create_product('Shoe', 5, 99)")
        assert order(conn, product) == 1
        assert one(conn, "select status from flashsale.get_order(1)") == "paid"
        assert audit(conn) == []


def test_a_whole_sale_over_http(server: Cluster, shop: str, tmp_path: Path) -> None:
    """A rehearsal has all kinds of buyers, and compares what they were told with the database."""
    role = server.url(APP_ROLE, "shop")
    with running_server(role, tmp_path / "gunicorn.log", FLASHSALE_WEBHOOK_SECRETS=SECRET) as url:
        printed = flashsale(
            shop, "rehearse", "--url", url, "--buyers", "200", "--stock", "40",
            "--report", str(tmp_path / "report.html"), "--json",
        )  # fmt: skip
    assert json.loads(printed)["passed"]
    assert "Traceback" not in (tmp_path / "gunicorn.log").read_text()


def test_the_operators_side(shop: str) -> None:
    flashsale(shop, "product", "create", "Drop 7", "--stock", "3", "--price", "10")
    with psycopg.connect(shop, autocommit=True) as conn:
        product = one(conn, "select product_id from flashsale.stock order by product_id desc limit 1")
        paid = order(conn, product)
        assert pay(conn, paid) == "applied"
        assert pay(conn, paid) == "refund_due"
        assert one(conn, "select count(*) from flashsale.refunds_due where order_id = %s", paid) == 1
        conn.execute("call flashsale.sweep()")
        conn.execute("select * from flashsale.purge('0 seconds')")
    flashsale(shop, "watch", "--once")
    assert flashsale(shop, "audit") == "every invariant holds\n"


def test_doctor_misses_nothing_but_pg_cron(shop: str) -> None:
    findings = json.loads(flashsale(shop, "doctor", "--json"))["findings"]
    assert [f for f in findings if f["status"] != "ok" and f["check"] != "pg_cron"] == []
    assert {f["check"] for f in findings} >= {"server", "durability", "functions", "grants", "roles", "audit"}
