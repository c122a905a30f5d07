"""`flashsale doctor`: migrations, and functions that differ from their files."""

import json

import pytest

from api.database.schema_version import migration_ids
from flashsale.doctor import schema
from tests.doctor.findings import after, problems


def test_a_pending_migration_fails(db):
    newest = migration_ids()[-1]
    assert problems(schema.migrations, db) == []
    with after(db, f"delete from flashsale_migrations._yoyo_migration where migration_id = '{newest}'"):
        assert problems(schema.migrations, db) == [("failed", f"pending: {newest}")]


def test_a_migration_of_a_newer_version_fails(db):
    with after(
        db,
        "update flashsale_migrations._yoyo_migration set migration_id = '9999.next'"
        " where migration_id ~ '^0001'",
    ):
        assert problems(schema.migrations, db) == [
            ("failed", "pending: 0001.roles-and-schemas"),
            ("failed", "the database has migrations of a newer version: 9999.next"),
        ]


def test_an_empty_database_fails_with_a_remedy(flashsale, empty_database):
    findings = json.loads(flashsale("doctor", "--json", FLASHSALE_DATABASE_URL=empty_database).stdout)[
        "findings"
    ]
    assert findings[-1] == {
        "check": "migrations",
        "status": "failed",
        "detail": "this database has not been migrated",
        "remedy": "run: flashsale migrate",
    }


def test_a_migrated_database_has_no_drift(db):
    assert problems(schema.functions, db) == []


def test_sql_of_another_version_fails(db):
    with after(db, "update flashsale_data.schema_state set digest = 'other'"):
        assert problems(schema.functions, db) == [("failed", "the loaded sql/ is of another version")]


DRIFT = {
    "a body": (
        "create or replace function flashsale.record_sweep(p_failure text default null)"
        " returns void language sql volatile security definer set search_path = pg_catalog, pg_temp"
        " as 'select null::void'",
        "flashsale.record_sweep differs from its file",
    ),
    "a setting": ("alter function flashsale.audit() reset search_path",
        "flashsale.audit differs from its file"),
    "security": ("alter procedure flashsale.sweep() security definer",
        "flashsale.sweep differs from its file"),
    "a comment": ("comment on function flashsale_data.announce_ledger_write() is 'mine'",
        "flashsale_data.announce_ledger_write differs from its file"),
    "a view": (
        "create or replace view flashsale.settings as select hold_time, payment_window, 0 as inbox_limit,"
        " inbox_keep, rejected_limit, extension_time, max_extensions from flashsale_data.settings",
        "flashsale.settings differs from its file",
    ),
    "one missing": ("drop function flashsale.release_hold(bigint)", "flashsale.release_hold is missing"),
    "one too many": ("create function flashsale.mine() returns int language sql as 'select 1'",
        "flashsale.mine has no file in sql/"),
    "an overload": ("create function flashsale.place_hold(bigint) returns int language sql as 'select 1'",
        "flashsale.place_hold differs from its file"),
    "a view too many": ("create view flashsale_data.mine as select 1 as one",
        "flashsale_data.mine has no file in sql/"),
}  # fmt: skip


@pytest.mark.parametrize(("statement", "said"), DRIFT.values(), ids=DRIFT)
def test_a_manual_change_is_found(db, statement, said):
    with after(db, statement):
        assert problems(schema.functions, db) == [("failed", said)]


def test_the_check_for_drift_changes_and_locks_nothing(db, connect):
    catalog = "select count(*), md5(string_agg(oid::text || xmin::text, ',' order by oid)) from pg_proc"
    before = db.execute(catalog).fetchone()
    watcher = connect()
    pid = db.info.backend_pid
    with db.transaction():
        assert problems(schema.functions, db) == []
        strong = watcher.execute(
            "select relation::regclass::text, mode from pg_locks where pid = %s and locktype = 'relation'"
            " and relation in (select oid from pg_class where relkind <> 'S' and relnamespace in"
            "   ('flashsale'::regnamespace, 'flashsale_data'::regnamespace)) and mode <> 'AccessShareLock'",
            (pid,),
        ).fetchall()
    assert strong == []
    assert db.execute(catalog).fetchone() == before
