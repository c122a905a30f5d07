"""`flashsale doctor` as a command: the checks together, and the databases that they cannot examine."""

import json
import re
from collections.abc import Iterator

import psycopg
import pytest

from flashsale.database.migrations import migrate
from flashsale.doctor import audit
from flashsale.local.cluster import SUPERUSER, Cluster, find_binary, has_pg_cron, stop_server
from tests.doctor.findings import SECRET, problems
from tests.support.clusters import cluster_folder
from tests.support.sale_steps import create_product, one


def test_an_unreachable_database_fails(flashsale):
    result = flashsale(
        "doctor", "--json", FLASHSALE_DATABASE_URL="postgresql://127.0.0.1:1/x?connect_timeout=2"
    )
    assert result.exit_code == 1
    last = json.loads(result.stdout)["findings"][-1]
    assert (last["check"], last["status"]) == ("database", "failed")
    assert last["detail"].startswith("cannot connect to the database: ")


def test_a_missing_database_fails(flashsale, tmp_path):
    result = flashsale("doctor", FLASHSALE_DATABASE_URL="", FLASHSALE_DATA_DIR=str(tmp_path))
    assert result.exit_code == 1
    assert "start the private cluster with: flashsale up" in result.stdout


def test_a_violated_invariant_fails(db):
    create_product(db)
    assert problems(audit.audit, db) == []
    db.execute("update flashsale_data.stock set paid = 1")
    assert ("failed", "paid_counter: product 1 counts 1 paid, its orders add up to 0") in problems(
        audit.audit, db
    )


def test_checks_that_a_role_cannot_run_are_warnings(flashsale, cluster, db):
    result = flashsale(
        "doctor", "--json", FLASHSALE_DATABASE_URL=cluster.url("flashsale_app", db.info.dbname)
    )
    unchecked = {
        f["check"] for f in json.loads(result.stdout)["findings"] if "not checked by role" in f["detail"]
    }
    assert {"migrations", "functions", "sale_settings", "audit"} <= unchecked


def test_failed_checks_are_printed_and_exit_with_1(flashsale):
    result = flashsale("doctor")
    assert result.exit_code == 1
    lines = result.stdout.splitlines()
    at = next(n for n, line in enumerate(lines) if "fsync is off for the server" in line)
    assert lines[at].split()[:2] == ["failed", "durability"]
    assert lines[at + 1].strip() == "→ restart PostgreSQL with fsync = on on its command line"
    assert re.search("failed, [12] warnings?$", lines[-1])


@pytest.fixture
def own_cluster() -> Iterator[Cluster]:
    with cluster_folder() as folder:
        yield Cluster(folder)


@pytest.mark.slow
@pytest.mark.parametrize("with_pg_cron", [True, False])
def test_a_new_private_cluster_passes(flashsale, own_cluster, with_pg_cron):
    """It has the settings of `flashsale up`, unlike the suite's; without pg_cron there is one warning."""
    own_cluster.create()
    server = own_cluster.start(with_pg_cron=with_pg_cron)
    try:
        url = own_cluster.url(SUPERUSER, "postgres")
        migrate(url, say=lambda _: None)
        with psycopg.connect(url) as conn:
            conn.execute("create role shop login in role flashsale_api")
        result = flashsale("doctor", "--json", FLASHSALE_DATABASE_URL=url, FLASHSALE_WEBHOOK_SECRETS=SECRET)
        report = json.loads(result.stdout)
        assert (result.exit_code, report["ok"]) == (0, True), report
        not_ok = {f["check"] for f in report["findings"] if f["status"] != "ok"}
        assert not_ok == (set() if with_pg_cron and has_pg_cron(find_binary("postgres")) else {"pg_cron"})
        assert {f["check"] for f in report["findings"]} == {
            "secrets", "environment", "open_files", "database", "server", "clock", "durability", "settings",
            "session", "collation", "migrations", "functions", "grants", "roles", "connections",
            "subscriptions", "publications", "sequences", "orphans", "sale_settings",
            "sale_terms", "rejected_webhooks", "test_products", "pg_cron", "audit",
        }  # fmt: skip
        assert flashsale("doctor", FLASHSALE_DATABASE_URL=url).stdout.endswith("warnings\n") or with_pg_cron
        with psycopg.connect(url) as conn:
            assert one(conn, "select count(*) from pg_class where relnamespace = pg_my_temp_schema()") == 0
    finally:
        stop_server(server)
