"""The recipes of docs/databases.md, each on servers of its own, beside another application."""

import json
import os
import re
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
import psycopg
import pytest

from flashsale.database.migrations import migrate
from flashsale.errors import UserError
from flashsale.local.cluster import OLDEST_POSTGRESQL, SUPERUSER, Cluster, find_binary
from tests.docs.documents import Reader, blocks, examples, sections
from tests.support import ROOT, neighbours, servers
from tests.support.clusters import running_cluster, standby_of
from tests.support.database import needs_pg_cron
from tests.support.flashsale_up import FLASHSALE
from tests.support.http import running_server
from tests.support.poolers import pooler
from tests.support.sale_steps import audit, create_order, one, order, pay, place_hold
from tests.support.waiting import wait_until

SECRET = "whsec_" + "c2VjcmV0" * 6
DATABASES = ROOT / "docs/databases.md"
BOOKS = (
    "select array_agg(s) from flashsale.stock s", "select array_agg(p) from flashsale.payments p",
    "select array_agg(e) from flashsale_data.events e", "select array_agg(h) from flashsale_data.holds h",
)  # fmt: skip

pytestmark = pytest.mark.slow


def new_shop(cluster: Cluster, *, schedule: bool = True) -> str:
    """A superuser's URL of a new database flashsale, after a few sales."""
    with psycopg.connect(cluster.url(SUPERUSER, "postgres"), autocommit=True) as conn:
        conn.execute("create database flashsale")
    url = cluster.url(SUPERUSER, "flashsale")
    migrate(url, schedule=schedule, say=lambda _: None)
    with psycopg.connect(url, autocommit=True) as conn:
        conn.execute("select flashsale.create_product('Limited sneaker', 50, 99)")
        paid = create_order(conn, place_hold(conn, 1, 2, key="cart-1"))
        assert [pay(conn, paid), pay(conn, paid)] == ["applied", "refund_due"]
        order(conn, 1)
        place_hold(conn, 1)
        pay(conn, 4711)
        conn.execute("create role checkout login in role flashsale_api")
        conn.execute("create role olivia login in role flashsale_ops")
    return url


def books(url: str) -> list[str]:
    with psycopg.connect(url) as conn:
        assert audit(conn) == []
        return [str(one(conn, query)) for query in BOOKS]


def settings_of(section: str) -> str:
    """The settings of another program in a section."""
    (settings,) = (block.text for block in blocks(DATABASES, section) if block.kind == "ini")
    return settings


def post(base: str, path: str, body: dict) -> tuple[int, dict]:
    answer = httpx.post(base + path, json=body, timeout=10)
    return answer.status_code, answer.json()


def assert_sold(base: str) -> None:
    """A hold, its order and its payment, each of which is seen by the read that follows it."""
    before = httpx.get(f"{base}/api/products/1").json()["available_stock"]
    status, hold = post(base, "/api/holds", {"product_id": 1, "qty": 1})
    assert status == 201, hold
    assert httpx.get(f"{base}/api/products/1").json()["available_stock"] == before - 1
    status, order = post(base, "/api/orders", {"hold_id": hold["hold_id"]})
    assert status == 201, order
    payment = {
        "idempotency_key": f"pay-{order['order_id']}",
        "order_id": order["order_id"],
        "status": "success",
    }
    assert post(base, "/api/payments/webhook", payment)[1]["result"] == "applied"
    seen = httpx.get(f"{base}/api/orders/{order['order_id']}", params={"hold_id": hold["hold_id"]})
    assert seen.json()["status"] == "paid"


@contextmanager
def reader(folder: Path, **environment: str) -> Iterator[Reader]:
    with Reader(folder, environment=environment) as reading:
        yield reading


@needs_pg_cron
@pytest.mark.parametrize("cron_database", ["flashsale", "postgres"])
def test_dump_and_restore_under_another_name(tmp_path: Path, cron_database: str) -> None:
    with (
        running_cluster({"cron.database_name": cron_database}) as cluster,
        running_cluster() as other,
    ):
        url = new_shop(cluster)
        before = books(url)
        with (
            neighbours.unharmed(cluster),
            neighbours.unharmed(other),
            reader(
                tmp_path, FLASHSALE_DATABASE_URL=url, OTHER_SERVER=other.url(SUPERUSER, "postgres")
            ) as reading,
        ):
            for example in examples(DATABASES, "Dump and restore under another name"):
                reading.check(example)
                if "flashsale audit" in example.text:
                    restored = url.replace("/flashsale?", "/restored?")
                    assert books(restored) == before
                    with psycopg.connect(restored, autocommit=True) as conn:
                        assert place_hold(conn, 1, 2, key="cart-1") == one(
                            conn, "select hold_id from flashsale_data.orders where order_id = 1"
                        )
        assert books(url) == books(other.url(SUPERUSER, "flashsale")) == before
        with psycopg.connect(cluster.url(SUPERUSER, cron_database)) as conn:
            jobs = conn.execute(
                "select distinct database from cron.job where jobname ~ 'flashsale'"
            ).fetchall()
            assert {name for (name,) in jobs} == {"flashsale", cron_database}


@pytest.mark.parametrize("version", [None, *servers.versions()])
def test_move_by_logical_replication(tmp_path: Path, version: str | None) -> None:
    """Requests are served while it copies, and the new database goes on where the old one stopped."""
    with (
        running_cluster({"wal_level": "logical"}) as old_cluster,
        running_cluster(version=version) as new_cluster,
    ):
        old = new_shop(old_cluster)
        new = new_cluster.url(SUPERUSER, "flashsale")
        with psycopg.connect(new_cluster.url(SUPERUSER, "postgres"), autocommit=True) as conn:
            conn.execute("create database flashsale")
        server = psycopg.connect(old_cluster.url("checkout", "flashsale"), autocommit=True)
        with (
            server,
            neighbours.unharmed(old_cluster, in_transaction=False),
            neighbours.unharmed(new_cluster),
            reader(tmp_path, OLD=old, NEW=new) as reading,
        ):
            *steps, back = examples(DATABASES, "Move by logical replication")
            for example in steps:
                reading.check(example)
                if "create subscription" in example.text:
                    place_hold(server, 1, key="meanwhile")
                if "flashsale audit" in example.text:
                    assert books(new) == books(old)
            with pytest.raises(psycopg.OperationalError):
                server.execute("select 1")
            with psycopg.connect(old) as conn, pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
                place_hold(conn, 1)
            with psycopg.connect(new, autocommit=True) as conn:
                assert order(conn, 1) == one(conn, "select max(order_id) from flashsale_data.orders")
                assert (
                    one(conn, "select count(*) from flashsale.place_hold(1, 1, 'meanwhile') where replayed")
                    == 1
                )
                assert pay(conn, 2) == "applied"
                assert audit(conn) == []
            reading.check(back)
            with psycopg.connect(old, autocommit=True) as conn:
                place_hold(conn, 1)


@servers.needs("postgresql-18")
def test_pg_upgrade(tmp_path: Path) -> None:
    with ExitStack() as stack:
        cluster = stack.enter_context(running_cluster(with_pg_cron=False))
        url = new_shop(cluster, schedule=False)
        neighbours.create(cluster)
        before, neighbour = books(url), neighbours.state(cluster)
        neighbour.pop("server")  # its settings are those of the new version
        programs = servers.programs("18", cluster.directory / "programs")
        account = cluster.account
        # Below a folder of the account, as /var/lib/postgresql is.
        home = cluster.directory / "home"
        account.make_private_directory(home)
        instead = {
            # An ordinary user's clusters belong to that account, and have the superuser postgres, too.
            "sudo -u postgres": " ".join(account.prefix) or f"env PGUSER={SUPERUSER}",
            "initdb -D": f"initdb -U {SUPERUSER} -D",
            "/usr/lib/postgresql/15/bin": str(find_binary("postgres").parent),
            "/usr/lib/postgresql/18/bin": str(programs),
            "/var/lib/postgresql": str(home),
            "15/main": str(cluster.data),
        }
        with Reader(tmp_path, instead=instead, environment={"FLASHSALE_DATABASE_URL": url}) as reading:
            for example in examples(DATABASES, "pg_upgrade"):
                reading.check(example)
                if "initdb" in example.text:
                    with (home / "18/main/postgresql.conf").open("a") as conf:
                        conf.write(
                            f"listen_addresses = ''\nunix_socket_directories = '{cluster.socket_directory}'\n"
                        )
                    stack.callback(
                        subprocess.run,
                        account.command(programs / "pg_ctl", "-D", home / "18/main", "-m", "fast", "stop"),
                        cwd="/", capture_output=True,
                    )  # fmt: skip
        assert books(url) == before
        assert neighbours.state(cluster).items() >= neighbour.items()
        with psycopg.connect(url, autocommit=True) as conn:
            assert conn.info.server_version // 10000 == 18
            order(conn, 1)
            assert audit(conn) == []


@needs_pg_cron
def test_managed_servers(tmp_path: Path) -> None:
    """The administrator is a role without SUPERUSER that the provider has given pg_cron."""
    with running_cluster() as cluster, neighbours.unharmed(cluster):
        with psycopg.connect(cluster.url(SUPERUSER, "postgres"), autocommit=True) as conn:
            conn.execute("create role admin login createrole createdb in role pg_signal_backend")
            conn.execute("create database flashsale owner admin")
            conn.execute("grant usage on schema cron to admin with grant option")
            conn.execute("grant execute on all functions in schema cron to admin with grant option")
        in_shop, in_cron, by_hand = examples(DATABASES, "Managed servers")
        with (
            Reader(tmp_path, role=cluster.url("admin", "flashsale")) as shop,
            Reader(tmp_path, role=cluster.url("admin", "postgres")) as cron,
        ):
            shop.check(in_shop)
            migrator = cluster.url("migrator", "flashsale")
            assert "WARNING" in said(migrator, "migrate")
            with psycopg.connect(cluster.url("admin", "flashsale"), autocommit=True) as conn:
                conn.execute("grant flashsale_ops to admin")
                cron.check(by_hand)
                run_job(cluster, "admin")
                conn.execute("call flashsale.sweep()")
            assert [f["detail"] for f in problems(migrator)] == [
                "not checked: role migrator cannot see the jobs of pg_cron"
            ]
            with psycopg.connect(cluster.url("admin", "postgres"), autocommit=True) as conn:
                conn.execute("select cron.unschedule('flashsale sweep flashsale')")

            cron.check(in_cron)
            assert "scheduled flashsale.sweep()" in said(migrator, "migrate")
            run_job(cluster, "migrator")
            assert problems(migrator) == []
            assert "every invariant holds" in said(migrator, "audit")


def said(url: str, *command: str) -> str:
    """What flashsale prints."""
    return subprocess.run(
        [*FLASHSALE, *command],
        env=os.environ | {"FLASHSALE_DATABASE_URL": url, "FLASHSALE_WEBHOOK_SECRETS": SECRET},
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip


def problems(url: str) -> list[dict]:
    """What doctor finds, but that the server has no role yet."""
    findings = json.loads(said(url, "doctor", "--json"))["findings"]
    return [f for f in findings if f["status"] != "ok" and f["check"] != "roles"]


def run_job(cluster: Cluster, role: str) -> None:
    """Run the command of the sweep's job as pg_cron does: in its database, as its role."""
    with psycopg.connect(cluster.url(SUPERUSER, "postgres")) as conn:
        command, database, username = conn.execute(
            "select command, database, username from cron.job where jobname = 'flashsale sweep flashsale'"
        ).fetchone()
    assert username == role
    with psycopg.connect(cluster.url(username, database), autocommit=True) as conn:
        conn.execute(command)


@servers.needs("pgbouncer")
def test_pgbouncer(tmp_path: Path) -> None:
    """A sale in session mode, while a product is locked and after PgBouncer has restarted."""
    with running_cluster() as cluster:
        url = new_shop(cluster, schedule=False)
        with (
            neighbours.unharmed(cluster),
            Reader(tmp_path, superuser=url) as reading,
            pooler(cluster, "pgbouncer", settings_of("PgBouncer")) as pool,
        ):
            for example in examples(DATABASES, "PgBouncer"):
                reading.check(example)
            with running_server(pool.url("checkout"), tmp_path / "log") as base:
                assert_sold(base)
                with psycopg.connect(url) as conn:
                    conn.execute("select flashsale.adjust_stock(1, 1)")
                    assert post(base, "/api/holds", {"product_id": 1, "qty": 1})[0] == 503
                pool.restart()
                wait_until(
                    lambda: post(base, "/api/holds", {"product_id": 1, "qty": 1})[0] == 201, "it reconnects"
                )
                assert_sold(base)
            books(url)


@servers.needs("pgbouncer")
def test_pgbouncer_in_transaction_mode_is_refused() -> None:
    with running_cluster(with_pg_cron=False) as cluster:
        new_shop(cluster, schedule=False)
        settings = settings_of("PgBouncer").replace("pool_mode=session", "pool_mode=transaction")
        with (
            pooler(cluster, "pgbouncer", settings) as pool,
            pytest.raises(UserError, match="pooler in transaction mode"),
        ):
            migrate(pool.url(SUPERUSER), schedule=False, say=lambda _: None)


@servers.needs("pgpool")
def test_read_and_write_splitters(tmp_path: Path) -> None:
    """Every read sees what was written before it, while the standby that reads could go to lags behind."""
    with running_cluster() as cluster, standby_of(cluster) as standby:
        url = new_shop(cluster, schedule=False)
        with neighbours.unharmed(cluster):
            with psycopg.connect(standby.url(SUPERUSER, "postgres"), autocommit=True) as conn:
                wait_until(
                    lambda: one(conn, "select count(*) from pg_database where datname = 'flashsale'"),
                    "it follows",
                )
                conn.execute("select pg_wal_replay_pause()")
            with (
                pooler(cluster, "pgpool", settings_of("Read and write splitters"), standby) as pool,
                running_server(pool.url("checkout"), tmp_path / "log") as base,
            ):
                for _ in range(5):
                    assert_sold(base)
        books(url)


def test_versions_of_postgresql() -> None:
    text = sections(DATABASES)["Versions of PostgreSQL"]
    assert f"PostgreSQL {OLDEST_POSTGRESQL} to {servers.VERSIONS[-1]}." in text
    assert f"on {', '.join(servers.VERSIONS[:-1])} and {servers.VERSIONS[-1]}" in text


def test_every_section_has_a_test() -> None:
    tests = Path(__file__).read_text()
    for heading in sections(DATABASES):
        name = re.sub(r"\W+", "_", heading.lower())
        assert f"def test_{name}(" in tests, heading
