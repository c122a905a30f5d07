"""The lock of migrations: of one session, waited for with a limit, and its holder is named."""

import re
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import psycopg
import pytest

from flashsale.database import pooler
from flashsale.database.connection import connect
from flashsale.database.migration_lock import LOCK_TIMEOUT, check_lock, migration_lock
from flashsale.database.migrations import migrate
from flashsale.errors import UserError
from flashsale.local.cluster import SUPERUSER
from tests.support.sale_steps import one
from tests.support.transaction_pooler import TransactionPooler, transaction_pooler
from tests.support.waiting import wait_until

SHORT = timedelta(milliseconds=50)


def ignore(_: str) -> None:
    pass


@pytest.fixture
def pooled(cluster) -> Iterator[TransactionPooler]:
    with transaction_pooler(cluster) as pool:
        yield pool


def test_a_second_run_ends_after_its_limit_and_names_the_holder(empty_database):
    said: list[str] = []
    before = datetime.now(UTC).replace(microsecond=0)
    with migration_lock(empty_database, LOCK_TIMEOUT, ignore) as holder:
        with pytest.raises(UserError, match=r"did not end within 0\.05 s") as refused:
            migrate(empty_database, schedule=False, lock_timeout=SHORT, say=said.append)
        pid = holder.info.backend_pid
        found = re.search(
            rf"process {pid} of role postgres holds the lock \(flashsale migrate since (.*?)\)",
            str(refused.value),
        )
        assert found, refused.value
        assert before <= datetime.fromisoformat(found[1]) <= datetime.now(UTC)
        assert said == [f"waiting for another migrate of this database: {found[0]}"]


def test_the_holder_is_ended_by_the_statement_that_is_printed(empty_database, db):
    with migration_lock(empty_database, LOCK_TIMEOUT, ignore) as holder:
        with pytest.raises(UserError) as refused:
            migrate(empty_database, schedule=False, lock_timeout=SHORT, say=ignore)
        db.execute(str(refused.value).partition("as a superuser: ")[2])
        migrate(empty_database, schedule=False, say=ignore)
        with pytest.raises(psycopg.errors.AdminShutdown):
            holder.execute("select 1")


def test_any_session_with_the_lock_is_named_with_the_time_of_its_connection(empty_database):
    with connect("migrate", empty_database) as other:
        other.execute("set application_name = ''")
        other.execute("select pg_advisory_lock(x'666C617368'::bigint)")
        started = one(
            other,
            "select to_char(backend_start at time zone 'UTC', 'YYYY-MM-DD HH24:MI:SS')"
            " from pg_stat_activity where pid = pg_backend_pid()",
        )
        with pytest.raises(UserError, match=rf"\(no application name, connected since {started}Z\)"):
            migrate(empty_database, schedule=False, lock_timeout=SHORT, say=ignore)


def test_a_role_that_may_not_see_the_session_of_the_holder_sees_since_when(cluster, empty_database, db):
    db.execute("create role test_stranger login")
    try:
        with (
            migration_lock(empty_database, LOCK_TIMEOUT, ignore),
            pytest.raises(
                UserError, match=r"of role postgres holds the lock \(flashsale migrate since \d{4}-"
            ),
        ):
            migrate(cluster.url("test_stranger", "flashsale_empty"), lock_timeout=SHORT, say=ignore)
    finally:
        db.execute("drop role test_stranger")


def test_a_run_that_waits_goes_on_when_the_lock_is_free(empty_database, db):
    said: list[str] = []

    def run() -> None:
        migrate(empty_database, schedule=False, say=said.append)

    with migration_lock(empty_database, LOCK_TIMEOUT, ignore):
        waiting = threading.Thread(target=run)
        waiting.start()
        query = "select pid from pg_locks where locktype = 'advisory' and not granted"
        wait_until(lambda: db.execute(query).fetchone(), "the other run waits")
    waiting.join(60)
    assert said[-1] == "loaded sql/"


def test_a_session_without_the_lock_is_found(empty_database):
    with migration_lock(empty_database, LOCK_TIMEOUT, ignore) as holder:
        check_lock(holder)
        with (
            connect("migrate", empty_database) as other,
            pytest.raises(UserError, match="does not hold the lock"),
        ):
            check_lock(other)
        holder.execute("select pg_advisory_unlock_all()")
        with pytest.raises(UserError, match="does not hold the lock"):
            check_lock(holder)


def test_a_run_whose_session_has_lost_the_lock_applies_nothing(empty_database, monkeypatch):
    def without_lock(conn: psycopg.Connection, *_: object) -> list[str]:
        conn.execute("select pg_advisory_unlock_all()")
        return []

    monkeypatch.setattr("flashsale.database.roles.prepare", without_lock)
    with pytest.raises(UserError, match="does not hold the lock"):
        migrate(empty_database, schedule=False, say=ignore)
    with connect("test", empty_database) as conn:
        assert one(conn, "select to_regnamespace('flashsale') is null")


@pytest.mark.parametrize("idle", [0, 1, 3], ids="{} idle sessions".format)
def test_a_pooler_in_transaction_mode_is_refused_before_anything_happens(pooled, empty_database, idle):
    url = pooled.url(SUPERUSER, "flashsale_empty")
    # The pool has sessions of earlier clients.
    earlier = [connect("test", url) for _ in range(idle)]
    for conn in earlier:
        conn.execute("begin")
    for conn in earlier:
        conn.execute("commit")
        conn.close()
    with pytest.raises(UserError, match="leads through a pooler in transaction mode"):
        migrate(url, schedule=False, say=ignore)
    with connect("test", empty_database) as conn:
        assert one(conn, "select to_regnamespace('flashsale_migrations') is null")
        assert one(conn, "select count(*) from pg_locks where locktype = 'advisory'") == 0


def test_a_direct_connection_is_not_taken_for_a_pooled_one(empty_database):
    with connect("migrate", empty_database) as conn:
        assert not pooler.shares_sessions(conn, empty_database)
