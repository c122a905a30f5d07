"""ops/patroni/: three machines as docs/failover.md sets them up; what pg_cron does at a switch-over."""

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
import yaml

from flashsale.database.migrations import migrate
from tests.support import ROOT, servers
from tests.support.database import needs_pg_cron
from tests.support.patroni import NAMES, OPS, QUICKEST, Shop, running_nodes
from tests.support.sale_steps import audit, create_product, one, order
from tests.support.waiting import wait_until

PATRONI = yaml.safe_load((OPS / "patroni.yml").read_text())
DCS = PATRONI["bootstrap"]["dcs"]


def environment(name: str) -> dict[str, str]:
    lines = (OPS / name).read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if not line.startswith("#"))


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd-analyze is not installed")
def test_systemd_accepts_the_unit(tmp_path: Path) -> None:
    unit = tmp_path / "patroni.service"
    # The program must exist.
    text = (OPS / "patroni.service").read_text()
    assert "/opt/patroni/bin/patroni " in text
    unit.write_text(text.replace("/opt/patroni/bin/patroni ", "/bin/true "))
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", unit], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_the_times_keep_a_primary_from_being_replaced_before_it_has_stopped() -> None:
    assert DCS["loop_wait"] + 2 * DCS["retry_timeout"] <= DCS["ttl"]
    assert QUICKEST["loop_wait"] + 2 * QUICKEST["retry_timeout"] <= QUICKEST["ttl"]


def test_the_document_names_what_the_files_have() -> None:
    text = (ROOT / "docs/failover.md").read_text()
    for name in ("ttl", "loop_wait", "retry_timeout"):
        assert f"`{name}` ({DCS[name]} s)" in text
    for name in ("synchronous_mode", "primary_start_timeout"):
        assert f"`{name}: {DCS[name]}`" in text
    assert (DCS["synchronous_mode_strict"], "`synchronous_mode_strict` is off" in text) == (False, True)


def test_the_files_of_a_machine_agree() -> None:
    patroni, etcd = environment("environment"), environment("etcd")
    address = patroni["PATRONI_POSTGRESQL_LISTEN"].partition(":")[0]
    assert {value.partition(":")[0] for name, value in patroni.items() if name != "PATRONI_NAME"} == {address}
    assert patroni["PATRONI_NAME"] == etcd["ETCD_NAME"]
    members = dict(member.split("=") for member in etcd["ETCD_INITIAL_CLUSTER"].split(","))
    assert list(members) == list(NAMES)
    assert members[etcd["ETCD_NAME"]] == etcd["ETCD_INITIAL_ADVERTISE_PEER_URLS"] == f"http://{address}:2380"
    clients = [url.removeprefix("http://").replace(":2380", ":2379") for url in members.values()]
    assert PATRONI["etcd3"]["hosts"].split(",") == clients


@pytest.fixture(scope="module")
def shop() -> Iterator[Shop]:
    with running_nodes(QUICKEST) as shop:
        with psycopg.connect(shop.url("postgres", "postgres"), autocommit=True) as conn:
            conn.execute("create database flashsale")
        migrate(shop.url("postgres", "flashsale"), say=lambda _: None)
        yield shop


SETTINGS = {
    "shared_preload_libraries": "pg_cron", "cron.database_name": "postgres",
    "cron.use_background_workers": "on",
    "max_locks_per_transaction": "256", "fsync": "on", "full_page_writes": "on", "synchronous_commit": "on",
    "data_checksums": "on", "wal_log_hints": "on",
}  # fmt: skip


@pytest.mark.slow
@servers.needs("etcd", "patroni")
@needs_pg_cron
def test_a_switch_over_takes_pg_cron_along(shop: Shop) -> None:
    for node in shop.nodes:
        with psycopg.connect(node.direct_url("flashsale")) as conn:
            found = dict(conn.execute("select name, setting from pg_settings").fetchall())
            assert {name: found[name] for name in SETTINGS} == SETTINGS, node.name
    old = shop.primary()
    with psycopg.connect(shop.url("postgres", "flashsale"), autocommit=True) as conn:
        waits_for = one(conn, "select current_setting('synchronous_standby_names')")
        assert waits_for.startswith("ANY 1 (") and waits_for.count('"') in (0, 4), waits_for
        product = create_product(conn)
        order(conn, product)
    assert shop.with_pg_cron() == [old.name]

    old.patronictl("switchover", "--force", "--primary", old.name)
    shop.wait_until_whole()
    new = shop.primary()
    assert new is not old
    assert shop.with_pg_cron() == [new.name]
    with psycopg.connect(shop.url("postgres", "flashsale"), autocommit=True) as conn:
        assert order(conn, product) > 1
        assert audit(conn) == []
        promoted = one(conn, "select clock_timestamp()")
        query = "select last_run_at > %s from flashsale_data.scheduler"
        wait_until(lambda: one(conn, query, promoted), "pg_cron sweeps on the new primary", 130)
