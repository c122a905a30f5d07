"""`flashsale migrate`: migrations are applied once, in order."""

import threading
import time
from datetime import timedelta

import psycopg
import pytest
from psycopg import errors, sql

from api.database.schema_version import FOLDERS, MIGRATIONS_DIRECTORY, migration_ids
from flashsale.database import migrations as subject
from flashsale.database.migrations import apply, migrate
from flashsale.database.sql_loader import SqlError
from flashsale.errors import UserError
from tests.support.database import routines


def test_a_second_run_applies_nothing_and_changes_nothing(empty_database):
    first, second = [], []
    migrate(empty_database, schedule=False, say=first.append)
    with psycopg.connect(empty_database) as db:
        before = routines(db)
    migrate(empty_database, schedule=False, say=second.append)
    with psycopg.connect(empty_database) as db:
        assert routines(db) == before
    assert first == [f"applied {name}" for name in migration_ids()] + ["loaded sql/"]
    assert second == ["loaded sql/"]


def test_the_tables_of_yoyo_have_a_schema_of_their_own(db):
    homes = db.execute("select distinct schemaname from pg_tables where tablename like '%yoyo%'").fetchall()
    assert homes == [("flashsale_migrations",)]
    assert db.execute(
        "select count(*) from pg_tables where schemaname in ('flashsale', 'public')"
    ).fetchone() == (0,)


def test_upto_stops_after_that_migration(empty_database):
    names = migration_ids()
    assert apply(empty_database, names[0]) == names[:1]
    assert apply(empty_database) == names[1:]
    with pytest.raises(UserError, match="no migration 9999"):
        apply(empty_database, "9999")


def test_everything_belongs_to_the_owner(db):
    strangers = db.execute(
        """
        select oid::regclass::text from pg_class
         where relnamespace in ('flashsale'::regnamespace, 'flashsale_data'::regnamespace)
           and relowner <> 'flashsale_owner'::regrole
        union all
        select oid::regprocedure::text from pg_proc
         where pronamespace in ('flashsale'::regnamespace, 'flashsale_data'::regnamespace)
           and proowner <> 'flashsale_owner'::regrole
        """
    ).fetchall()
    assert strangers == []


def test_an_error_in_a_migration_names_file_and_line_and_rolls_back(database_url, db, tmp_path):
    folder = tmp_path / "migrations"
    folder.mkdir()
    for path in MIGRATIONS_DIRECTORY.glob("*.sql"):
        (folder / path.name).write_text(path.read_text())
    bad = folder / "9999.bad.sql"
    bad.write_text("create table public.half_made ();\n\ninsert into nowhere values (1);\n")
    for _ in range(2):
        with pytest.raises(SqlError) as raised:
            apply(database_url, migrations=folder)
        assert str(raised.value).startswith(f"{bad}:3: ")
        assert db.execute("select to_regclass('public.half_made')").fetchone() == (None,)
    bad.write_text("create table public.whole ();")
    assert apply(database_url, migrations=folder) == ["9999.bad"]


def test_a_stale_lock_of_yoyo_is_ignored(database_url, db):
    db.execute("insert into flashsale_migrations.yoyo_lock (locked, ctime, pid) values (1, now(), 1)")
    said = []
    migrate(database_url, schedule=False, say=said.append)
    assert said == ["loaded sql/"]


def test_concurrent_runs_both_succeed(empty_database):
    said: list[str] = []
    failed: list[BaseException] = []

    def run() -> None:
        try:
            migrate(empty_database, schedule=False, say=said.append)
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=run) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    assert sorted(line for line in said if "waiting" not in line) == sorted(
        [f"applied {name}" for name in migration_ids()] + 2 * ["loaded sql/"]
    )


def test_a_role_without_rights_gets_the_commands_for_a_superuser(cluster, empty_database):
    with psycopg.connect(empty_database, autocommit=True) as admin:
        admin.execute("create role test_migrator login")
        try:
            url = cluster.url("test_migrator", "flashsale_empty")
            with pytest.raises(UserError, match="role test_migrator lacks rights to migrate") as refused:
                migrate(url, schedule=False, say=lambda _: None)
            advice = str(refused.value).split("must run: ")[1]
            assert advice.startswith("alter role test_migrator createrole;")
            assert advice.endswith("grant create on database flashsale_empty to test_migrator;")
            admin.execute(advice)
            migrate(url, schedule=False, say=lambda _: None)
            # Later migrations require membership in the owner only.
            admin.execute("alter role test_migrator nocreaterole")
            migrate(url, schedule=False, say=lambda _: None)
        finally:
            admin.execute("reassign owned by test_migrator to postgres")
            admin.execute("drop owned by test_migrator cascade")
            admin.execute("drop role test_migrator")


def test_an_unreachable_database_is_an_error():
    with pytest.raises(UserError, match="cannot connect to the database"):
        migrate("postgresql:///x?host=/nowhere", say=lambda _: None)


def test_only_the_owner_can_access_the_tables(connect):
    with pytest.raises(errors.InsufficientPrivilege):
        connect("flashsale_app").execute("select from flashsale_data.settings")


def test_a_stored_webhook_gets_a_deadline_and_one_that_was_passed_over_waits_no_longer(empty_database):
    apply(empty_database, "0002.tables", say=lambda _: None)
    with psycopg.connect(empty_database, autocommit=True) as conn:
        conn.execute(
            """
            insert into flashsale_data.products (name, price, currency, created_at)
              values ('Shoe', 1, 'USD', now());
            insert into flashsale_data.holds (hold_id, product_id, qty, status, placed_at, expires_at)
              values (1, 1, 1, 'ordered', now(), now());
            insert into flashsale_data.orders
              (order_id, hold_id, product_id, qty, amount, currency, created_at, payment_due_at)
              values (1, 1, 1, 1, 1, 'USD', '2026-01-01 12:00Z', '2026-01-01 13:00Z');
            insert into flashsale_data.payments
              (idempotency_key, order_id, status, payload, received_at, result, order_status)
              values ('passed over', 1, 'success', '{}', '2026-01-01 11:00Z', 'stored', null),
                     ('waits', 2, 'success', '{}', '2026-01-01 11:00Z', 'stored', null),
                     ('known', 1, 'success', '{}', '2026-01-01 11:00Z', 'refund_due', 'paid')
            """
        )
        apply(empty_database, "0003.inbox-deadlines", say=lambda _: None)
        deadlines = conn.execute(
            "select idempotency_key, wait_ends_at at time zone 'UTC' from flashsale_data.payments order by 1"
        ).fetchall()
    assert [(key, str(at)) for key, at in deadlines] == [
        ("known", "None"),
        ("passed over", "2026-01-01 12:00:00"),
        ("waits", "2026-01-02 11:00:00"),
    ]


def test_a_wait_that_has_not_ended_ends_on_a_whole_tenth_of_a_second(empty_database: str) -> None:
    with psycopg.connect(empty_database, autocommit=True) as conn:
        apply(empty_database, "0003.inbox-deadlines", say=lambda _: None)
        conn.execute(
            "insert into flashsale_data.payments"
            " (idempotency_key, order_id, status, payload, received_at, result, wait_ends_at)"
            " values ('waits', 1, 'failed', '{}', now(), 'stored', '2100-01-01 12:00:00.01Z'),"
            " ('waits to a tenth', 1, 'failed', '{}', now(), 'stored', '2100-01-01 12:00:00.1Z'),"
            " ('ended', 1, 'failed', '{}', now(), 'stored', '2026-01-01 12:00:00.01Z')"
        )
        apply(empty_database, "0004.deadlines-on-tenths", say=lambda _: None)
        deadlines = conn.execute(
            "select idempotency_key, wait_ends_at at time zone 'UTC' from flashsale_data.payments order by 1"
        ).fetchall()
    assert [(key, str(at)) for key, at in deadlines] == [
        ("ended", "2026-01-01 12:00:00.010000"),
        ("waits", "2100-01-01 12:00:00.100000"),
        ("waits to a tenth", "2100-01-01 12:00:00.100000"),
    ]


def test_holds_get_the_price_of_their_product(empty_database: str) -> None:
    with psycopg.connect(empty_database, autocommit=True) as conn:
        apply(empty_database, "0006.operations", say=lambda _: None)
        conn.execute(
            """
            insert into flashsale_data.products (name, price, currency, created_at)
              values ('Shoe', 99.00, 'USD', now()), ('Sock', 700, 'JPY', now());
            insert into flashsale_data.holds (hold_id, product_id, qty, status, placed_at, expires_at)
              values (1, 1, 1, 'ordered', now(), now()), (2, 2, 3, 'active', now(), now());
            """
        )
        apply(empty_database, "0007.hold-prices", say=lambda _: None)
        prices = "select hold_id, price::text, currency from flashsale_data.holds order by 1"
        assert conn.execute(prices).fetchall() == [(1, "99.00", "USD"), (2, "700", "JPY")]


def test_migrations_and_their_functions_are_one_transaction(empty_database, tmp_path):
    """An error in sql/ leaves no migration behind."""
    for folder in FOLDERS:
        (tmp_path / folder).mkdir()
    (tmp_path / "public" / "wrong.sql").write_text(
        "create or replace function flashsale.wrong() returns int language sql as 'select nothing';\n"
    )
    with pytest.raises(SqlError):
        migrate(empty_database, sql=tmp_path, schedule=False, say=lambda _: None)
    with psycopg.connect(empty_database) as conn:
        assert conn.execute("select to_regnamespace('flashsale')").fetchone() == (None,)


def test_the_time_limits_of_a_migration_end_with_it(empty_database, tmp_path):
    """The functions are loaded in the same transaction, and have the limits of the session."""
    migrations, sql = tmp_path / "migrations", tmp_path / "sql"
    migrations.mkdir()
    for path in MIGRATIONS_DIRECTORY.glob("*.sql"):
        (migrations / path.name).write_text(path.read_text())
    (migrations / "9999.brief.sql").write_text(
        "set local lock_timeout = '20s'; set local statement_timeout = '20s';\n"
    )
    for folder in FOLDERS:
        (sql / folder).mkdir(parents=True)
    (sql / "public" / "limits.sql").write_text(
        "do $$ begin"
        " assert '20s' not in (current_setting('lock_timeout'), current_setting('statement_timeout'));"
        " end $$;\n"
        "create or replace function flashsale.limits() returns int language sql as 'select 1';\n"
    )
    migrate(empty_database, migrations=migrations, sql=sql, schedule=False, say=lambda _: None)


def test_a_transaction_that_stays_open_ends_the_wait_for_its_view(empty_database, monkeypatch):
    """Callers wait behind what is locked already: a reader who forgets to commit must not stop the sale."""
    migrate(empty_database, schedule=False, say=lambda _: None)
    monkeypatch.setattr(subject, "OBJECT_LOCK_TIMEOUT", timedelta(milliseconds=200))
    with psycopg.connect(empty_database) as reader:
        # Of the database, so that a migrate without a limit of its own ends, too, and is late.
        name = sql.Identifier(reader.info.dbname)
        reader.execute(sql.SQL("alter database {} set lock_timeout = '20s'").format(name))
        reader.commit()
        reader.execute("select from flashsale.stock")
        began = time.monotonic()
        with pytest.raises(UserError, match="An open transaction uses the table or view"):
            migrate(empty_database, schedule=False, say=lambda _: None)
        assert time.monotonic() - began < 15
    migrate(empty_database, schedule=False, say=lambda _: None)
