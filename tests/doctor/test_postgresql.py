"""`flashsale doctor`: the server, its clock, durability and settings."""

import time
from types import SimpleNamespace

import psycopg
import pytest
from pytest_postgresql.janitor import DatabaseJanitor

from flashsale.database import connection as connections
from flashsale.doctor import postgresql
from flashsale.local.cluster import PORT, SUPERUSER
from tests.doctor.findings import after, only, problems
from tests.support.sale_steps import one
from tests.support.waiting import wait_until


def test_an_old_server_fails(db, monkeypatch):
    assert problems(postgresql.server, db) == []
    monkeypatch.setattr(postgresql, "OLDEST_SERVER", 990000)
    assert "99 or newer" in only(postgresql.server, db).remedy


def test_an_encoding_other_than_utf8_fails(cluster):
    with DatabaseJanitor(
        user=SUPERUSER, host=str(cluster.socket_directory), port=PORT, dbname="flashsale_latin"
    ):
        with psycopg.connect(cluster.url(SUPERUSER, "postgres"), autocommit=True) as conn:
            conn.execute("drop database flashsale_latin")
            conn.execute("create database flashsale_latin encoding latin1 locale 'C' template template0")
        with psycopg.connect(cluster.url(SUPERUSER, "flashsale_latin")) as conn:
            assert problems(postgresql.server, conn) == [("failed", "the database's encoding is LATIN1")]


@pytest.mark.parametrize(
    ("ahead", "status", "said"),
    [
        (0, "ok", "agree"),
        (-5, "warning", "5.0 s ahead of"),
        (5, "warning", "5.0 s behind"),
        (90, "failed", "90.0 s behind"),
    ],
)
def test_a_clock_offset_is_found(db, monkeypatch, ahead, status, said):
    monkeypatch.setattr(postgresql, "time", SimpleNamespace(time=lambda: time.time() + ahead))
    finding = only(postgresql.clock, db)
    assert finding.status == status
    assert said in finding.detail


def test_a_server_without_durable_commits_fails(db):
    """The suite's own server does not flush to disk."""
    assert sorted(problems(postgresql.durability, db)) == [
        ("failed", "fsync is off for the server"),
        ("failed", "full_page_writes is off for the server"),
        ("failed", "synchronous_commit is off for the server"),
    ]


@pytest.mark.parametrize(
    "whom",
    ["database flashsale_doctor", "role flashsale_app", "role flashsale_app in database flashsale_doctor"],
)
def test_a_role_or_database_without_durable_commits_fails(db, whom):
    with after(db, f"alter {whom} set synchronous_commit = off"):
        finding = next(
            f for f in postgresql.durability(db) if f.detail == f"synchronous_commit is off for {whom}"
        )
        assert finding.remedy == f"alter {whom} set synchronous_commit = on"
        db.execute(finding.remedy)
        assert ("failed", finding.detail) not in problems(postgresql.durability, db)


def test_default_settings_are_ok(db):
    assert problems(postgresql.settings, db) == []


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ("default_transaction_isolation = 'repeatable read'", "warning"),
        ("default_transaction_read_only = on", "failed"),
        ("session_replication_role = replica", "failed"),
    ],
)
def test_settings_that_break_callers_are_found(db, setting, expected):
    name, _, value = setting.partition(" = ")
    with after(db, f"alter database flashsale_doctor set {setting}"):
        ((status, said),) = problems(postgresql.settings, db)
        assert status == expected
        assert said.startswith(f"{name} is {value.strip(chr(39))} for database flashsale_doctor")
        # Within this transaction; test_remedies.py runs it as printed.
        db.execute(
            only(postgresql.settings, db).remedy.removeprefix("begin read write; ").removesuffix("; commit")
        )
        assert problems(postgresql.settings, db) == []


def test_the_servers_isolation_is_seen_from_a_session_that_pins_its_own(db, connect):
    other = connect()
    other.execute("alter system set default_transaction_isolation = serializable")
    try:
        other.execute("select pg_reload_conf()")
        wait_until(
            lambda: one(other, "show default_transaction_isolation") == "serializable", "it is reloaded"
        )
        with connections.connect("doctor", db.info.dsn) as pinned:
            assert one(pinned, "show default_transaction_isolation") == "read committed"
            ((status, said),) = problems(postgresql.settings, pinned)
            assert (status, said[:55]) == (
                "warning", "default_transaction_isolation is serializable for the s"
            )  # fmt: skip
    finally:
        other.execute("alter system reset default_transaction_isolation")
        other.execute("select pg_reload_conf()")
        wait_until(
            lambda: one(other, "show default_transaction_isolation") == "read committed", "it is reset"
        )


def test_a_low_lock_limit_is_a_warning(db, monkeypatch):
    monkeypatch.setattr(postgresql, "RECOMMENDED_LOCKS", 512)
    found = ("warning", "max_locks_per_transaction is 256 for the server")
    assert problems(postgresql.settings, db) == [found]
