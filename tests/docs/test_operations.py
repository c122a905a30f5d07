"""The examples of docs/operations.md, run in order during a sale that an open transaction blocks."""

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest

from flashsale.local.cluster import SUPERUSER, Cluster, find_binary, has_pg_cron
from tests.docs.documents import Reader, examples, sections
from tests.support import ROOT, neighbours
from tests.support.flashsale_up import FLASHSALE, Up, data_folder
from tests.support.sale_steps import create_order, pay, place_hold
from tests.support.waiting import wait_until_blocked

OPERATIONS = ROOT / "docs/operations.md"
SET_UP = "Set-up"
"""the section that test_set_up.py runs"""
RULES = ROOT / "ops/alerts.yml"


@contextmanager
def sale(cluster: Cluster) -> Iterator[None]:
    """The sale of the document: paul's open transaction locks product 1 until his session is terminated."""
    url = cluster.url(SUPERUSER, "flashsale")
    with psycopg.connect(url, autocommit=True) as conn:
        # Long enough that nothing lapses while the document runs.
        conn.execute("select flashsale.change_settings('1 hour', '1 hour')")
        paid = create_order(conn, place_hold(conn, 1))
        create_order(conn, place_hold(conn, 1, 2))
        place_hold(conn, 1, 2)
        pay(conn, paid, key="pay_1:success")
        pay(conn, paid, key="pay_2:success")
        pay(conn, 4711, key="pay_3:success")
        conn.execute("select flashsale.change_settings('2 minutes', '15 minutes')")
        conn.execute("create role paul login in role flashsale_ops")
        conn.execute("create role olivia login in role flashsale_ops, pg_monitor, pg_signal_backend")

        conn.execute("create table notes (note text)")

        paul = psycopg.connect(cluster.url("paul", "flashsale"), application_name="psql")
        paul.execute("select flashsale.adjust_stock(1, 1)")
        # Two open transactions that block no other.
        reader = psycopg.connect(cluster.url("paul", "flashsale"), application_name="report")
        reader.execute("select now()")
        writer = psycopg.connect(url, application_name="notes")
        writer.execute("insert into notes values ('open')")
        warehouse = psycopg.connect(url, application_name="warehouse", autocommit=True)
        held: list[int] = []
        waiting = threading.Thread(target=lambda: held.append(place_hold(warehouse, 1)))
        waiting.start()
        try:
            wait_until_blocked(warehouse, watcher=conn)
            yield
            waiting.join(20)
            assert held, "the session that waited for paul was served"
            with pytest.raises(psycopg.OperationalError):
                paul.execute("select 1")
            reader.commit()
            writer.commit()
        finally:
            for session in (paul, reader, writer):
                session.close()
            waiting.join()
            warehouse.close()


@contextmanager
def situation(recipe: str, url: str) -> Iterator[None]:
    """What the recipe is for, if the sale is not in it yet; it is over afterwards."""
    if "default_transaction_read_only" not in recipe:
        yield
        return
    with psycopg.connect(url, autocommit=True) as conn:
        conn.execute("alter database flashsale set default_transaction_read_only = on")
    write = "select flashsale.change_settings('2 minutes')"
    with psycopg.connect(url) as conn, pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
        conn.execute(write)
    yield
    with psycopg.connect(url) as conn:
        conn.execute(write)


@pytest.mark.slow
@pytest.mark.skipif(not has_pg_cron(find_binary("postgres")), reason="pg_cron is not installed")
def test_every_command_prints_what_the_document_says(tmp_path: Path) -> None:
    with data_folder() as folder:
        up = Up(folder, [*FLASHSALE, "up"]).wait_until_it_is_up()
        cluster = Cluster(folder)
        superuser = cluster.url(SUPERUSER, "flashsale")
        try:
            with (
                neighbours.unharmed(cluster),
                sale(cluster),
                Reader(
                    tmp_path,
                    superuser=superuser,
                    role=cluster.url("olivia", "flashsale"),
                    instead={"localhost:8000": f"localhost:{up.port}", ".flashsale/": f"{folder}/"},
                    environment={"FLASHSALE_DATABASE_URL": superuser, "FLASHSALE_DATA_DIR": str(folder)},
                ) as reader,
            ):
                for section in sections(OPERATIONS):
                    for example in examples(OPERATIONS, section) if section != SET_UP else []:
                        with situation(example.text, superuser):
                            reader.check(example)
        finally:
            up.stop()


def test_every_alert_has_means_look_and_do() -> None:
    text = OPERATIONS.read_text()
    alerts = re.findall(
        r"^### Flashsale\w+ \((?:page|ticket)\)\n(.*?)(?=^#|\Z)", text, re.DOTALL | re.MULTILINE
    )
    assert len(alerts) == len(re.findall("^### Flashsale", text, re.MULTILINE)) > 0
    for alert in alerts:
        assert re.findall(r"^- \*\*(\w+):\*\*", alert, re.MULTILINE) == ["Means", "Look", "Do"], alert


@pytest.mark.skipif(not RULES.exists(), reason="there are no alert rules")
def test_alerts_are_those_of_the_rules() -> None:
    documented = re.findall(r"^### (Flashsale\w+) \((\w+)\)", OPERATIONS.read_text(), re.MULTILINE)
    rules = re.findall(r"- alert: (\w+).*?severity: (\w+)", RULES.read_text(), re.DOTALL)
    assert sorted(documented) == sorted(rules)
