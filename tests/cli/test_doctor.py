"""`flashsale doctor`: each check can fail, and names the remedy."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace

import psycopg
import pytest
from pytest_postgresql.janitor import DatabaseJanitor

from api.database.schema_version import migration_ids
from flashsale.database import pg_cron
from flashsale.database.migrations import migrate
from flashsale.doctor import audit, configuration, postgresql, roles, schema
from flashsale.doctor import pg_cron as pg_cron_checks
from flashsale.doctor.finding import MIGRATE, Finding
from flashsale.local.cluster import PORT, SUPERUSER, Cluster, find_binary, has_pg_cron, stop_server
from tests.support.clusters import cluster_folder
from tests.support.database import needs_pg_cron
from tests.support.sale_steps import create_product, one

SECRET = "whsec_" + "c2VjcmV0" * 6


@contextmanager
def after(db: psycopg.Connection, *statements: str) -> Iterator[psycopg.Connection]:
    """The database after `statements`, which are rolled back at the end."""
    with db.transaction(force_rollback=True):
        for statement in statements:
            db.execute(statement)
        yield db


def problems(check, *arguments) -> list[tuple[str, str]]:
    """The findings of a check that are not ok; each has a remedy."""
    findings = list(check(*arguments))
    assert findings, "a check always has a finding"
    assert {finding.status == "ok" for finding in findings} == {not any(f.remedy for f in findings)}
    return [(finding.status, finding.detail) for finding in findings if finding.status != "ok"]


def only(check, *arguments) -> Finding:
    (finding,) = check(*arguments)
    return finding


# secrets


def test_a_missing_secret_is_a_warning():
    assert problems(configuration.secrets, {}) == [
        ("warning", "FLASHSALE_WEBHOOK_SECRETS is not set here: webhooks cannot be verified")
    ]


@pytest.mark.parametrize("secret", ["hunter2", "whsec_short", "whsec_%%%%", f"{SECRET},whsec_"])
def test_an_invalid_secret_fails_and_is_not_printed(secret):
    ((status, said),) = problems(configuration.secrets, {"FLASHSALE_WEBHOOK_SECRETS": secret})
    assert (status, secret in said) == ("failed", False)


def test_secrets_are_counted():
    assert only(configuration.secrets, {"FLASHSALE_WEBHOOK_SECRETS": f"{SECRET},{SECRET}"}).detail.startswith(
        "2 "
    )


# database and server


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


# clock


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


# durability and settings


def test_a_server_without_durable_commits_fails(db):
    """The suite's own server does not flush to disk."""
    assert sorted(problems(postgresql.durability, db)) == [
        ("failed", "fsync is off for the server"),
        ("failed", "full_page_writes is off for the server"),
        ("failed", "synchronous_commit is off for the server"),
    ]


@pytest.mark.parametrize(
    ("whom", "where"),
    [
        ("database flashsale_cli", "database flashsale_cli"),
        ("role flashsale_app", "role flashsale_app"),
        ("role flashsale_app in database flashsale_cli", "role flashsale_app in database flashsale_cli"),
    ],
)
def test_a_role_or_database_without_durable_commits_fails(db, whom, where):
    with after(db, f"alter {whom} set synchronous_commit = off"):
        finding = next(
            f for f in postgresql.durability(db) if f.detail == f"synchronous_commit is off for {where}"
        )
        assert finding.remedy == f"alter {whom} set synchronous_commit = on"
        db.execute(finding.remedy)
        assert ("failed", finding.detail) not in problems(postgresql.durability, db)


def test_default_settings_are_ok(db):
    assert problems(postgresql.settings, db) == []


@pytest.mark.parametrize(
    "setting", ["default_transaction_isolation = 'repeatable read'", "default_transaction_read_only = on"]
)
def test_settings_that_break_callers_fail(db, setting):
    name, _, value = setting.partition(" = ")
    with after(db, f"alter database flashsale_cli set {setting}"):
        ((status, said),) = problems(postgresql.settings, db)
        assert status == "failed"
        assert said.startswith(f"{name} is {value.strip(chr(39))} for database flashsale_cli")
        db.execute(only(postgresql.settings, db).remedy)
        assert problems(postgresql.settings, db) == []


def test_a_low_lock_limit_is_a_warning(db, monkeypatch):
    monkeypatch.setattr(postgresql, "RECOMMENDED_LOCKS", 512)
    found = ("warning", "max_locks_per_transaction is 256 for the server")
    assert problems(postgresql.settings, db) == [found]


# migrations


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


# functions


def test_a_migrated_database_has_no_drift(db):
    assert problems(schema.functions, db) == []


def test_sql_of_another_version_fails(db):
    with after(db, "update flashsale_data.schema_state set digest = 'other'"):
        assert problems(schema.functions, db) == [("failed", "the loaded sql/ is of another version")]


DRIFT = {
    "a body": (
        "create or replace function flashsale.record_sweep() returns void language sql"
        " volatile security definer set search_path = pg_catalog, pg_temp as 'select null::void'",
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
        " inbox_keep from flashsale_data.settings",
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
            " and relation in (select oid from pg_class where relnamespace in"
            "   ('flashsale'::regnamespace, 'flashsale_data'::regnamespace)) and mode <> 'AccessShareLock'",
            (pid,),
        ).fetchall()
    assert strong == []
    assert db.execute(catalog).fetchone() == before


# grants and roles

GRANTS = {
    "public may call": ("grant execute on function flashsale.audit() to public",
        "public may use flashsale.audit"),
    "the api may call too much": ("grant execute on function flashsale.purge(interval) to flashsale_api",
        "flashsale_api may use flashsale.purge"),
    "the api may call too little": (
        "revoke execute on function flashsale.get_product(bigint) from flashsale_api",
        "flashsale_api may not use flashsale.get_product"),
    "operators see too little": ("revoke select on flashsale.stock from flashsale_ops",
        "flashsale_ops may not use flashsale.stock"),
    "a table is open": ("grant insert on flashsale_data.payments to flashsale_app",
        "flashsale_app may insert flashsale_data.payments"),
    "a sequence is open": ("grant usage on sequence flashsale_data.order_ids to public",
        "public may usage flashsale_data.order_ids"),
    "the closed schema is open": ("grant usage on schema flashsale_data to flashsale_api",
        "flashsale_api may usage in schema flashsale_data"),
    "anybody may create": ("grant create on schema flashsale to public",
        "public may create in schema flashsale"),
    "the schema is closed": ("revoke usage on schema flashsale from flashsale_api",
        "flashsale_api lacks usage on schema flashsale"),
    "a table is owned by another role": ("alter table flashsale_data.payments owner to postgres",
        "table flashsale_data.payments belongs to postgres"),
    "a function is owned by another role": ("alter function flashsale.audit() owner to postgres",
        "routine flashsale.audit() belongs to postgres"),
}  # fmt: skip


def test_a_migrated_database_has_the_grants_of_its_files(db):
    assert problems(roles.grants, db) == []


@pytest.mark.parametrize(("statement", "said"), GRANTS.values(), ids=GRANTS)
def test_a_wrong_grant_is_found_and_its_remedy_works(db, statement, said):
    with after(db, statement):
        assert ("failed", said) in problems(roles.grants, db)
        for finding in list(roles.grants(db)):
            if finding.remedy != MIGRATE:
                db.execute(finding.remedy)
                assert ("failed", said) not in problems(roles.grants, db)


def test_grants_to_other_roles_are_ignored(db):
    with after(db, "grant execute on function flashsale.read_events(bigint, int) to flashsale_app"):
        assert problems(roles.grants, db) == []


ROLES = {
    "one can log in": ("alter role flashsale_api login", "role flashsale_api has LOGIN or another attribute"),
    "one is a superuser": ("alter role flashsale_owner superuser",
        "role flashsale_owner has LOGIN or another attribute"),
    "one is in another": ("grant flashsale_owner to flashsale_ops",
        "role flashsale_ops is a member of flashsale_owner"),
    "one is not in the other": ("revoke flashsale_api from flashsale_ops",
        "role flashsale_ops is not a member of flashsale_api"),
}  # fmt: skip


@pytest.mark.parametrize(("statement", "said"), ROLES.values(), ids=ROLES)
def test_a_wrong_role_is_found_and_its_remedy_works(db, statement, said):
    with after(db, statement):
        assert problems(roles.roles, db) == [("failed", said)]
        db.execute(only(roles.roles, db).remedy)
        assert problems(roles.roles, db) == []


def test_a_missing_role_fails(db):
    with after(db, "alter role flashsale_ops rename to flashsale_gone"):
        assert ("failed", "role flashsale_ops does not exist") in problems(roles.roles, db)


def test_a_missing_login_role_is_a_warning(db):
    with after(db, "alter role flashsale_app nologin"):
        others = [row[0] for row in db.execute(roles._LOGINS)]
        for other in others:
            db.execute(f"alter role {other} nologin")
        assert problems(roles.roles, db) == [("warning", "flashsale_api has no login role as a member")]


# sale_settings


def test_the_settings_of_the_sale_are_printed(db):
    assert only(configuration.sale_settings, db).detail == "hold time 2 min, payment window 15 min"


@pytest.mark.parametrize("change", ["'1 second'", "p_payment_window => '1 second'", "p_inbox_limit => 0"])
def test_settings_of_a_trial_are_a_warning(db, change):
    db.execute(f"select flashsale.change_settings({change})")
    ((status, _),) = problems(configuration.sale_settings, db)
    assert status == "warning"


# pg_cron


@needs_pg_cron
def test_scheduled_jobs_are_ok(db, scheduled):
    assert (
        only(pg_cron_checks.pg_cron, db).detail == "installed, loaded, running and on schedule; no sweep yet"
    )


@needs_pg_cron
def test_missing_jobs_fail(db, scheduled, database_url):
    pg_cron.unschedule(db, database_url)
    assert problems(pg_cron_checks.pg_cron, db) == [
        ("failed", f"job 'flashsale sweep {scheduled}' is missing"),
        ("failed", f"job 'flashsale forget runs {scheduled}' is missing"),
    ]


@needs_pg_cron
def test_an_inactive_job_fails_and_its_remedy_works(db, scheduled, cron):
    cron.execute("update cron.job set active = false where jobname = %s", (f"flashsale sweep {scheduled}",))
    assert problems(pg_cron_checks.pg_cron, db) == [
        ("failed", f"job 'flashsale sweep {scheduled}' is not active")
    ]
    cron.execute(only(pg_cron_checks.pg_cron, db).remedy.partition(": ")[2])
    assert problems(pg_cron_checks.pg_cron, db) == []


@needs_pg_cron
def test_a_job_with_another_command_fails(db, scheduled, cron):
    cron.execute(
        "update cron.job set command = 'select 1' where jobname = %s", (f"flashsale sweep {scheduled}",)
    )
    ((status, said),) = problems(pg_cron_checks.pg_cron, db)
    assert (status, "has another command: select 1" in said) == ("failed", True)


@needs_pg_cron
def test_a_failed_job_fails(db, scheduled, cron):
    cron.execute(
        "insert into cron.job_run_details (jobid, status, return_message, start_time, end_time)"
        " select jobid, 'failed', E'ERROR: no\\nsuch thing', now(), now() from cron.job where jobname = %s",
        (f"flashsale sweep {scheduled}",),
    )
    assert problems(pg_cron_checks.pg_cron, db) == [
        ("failed", f"job 'flashsale sweep {scheduled}' failed: ERROR: no such thing")
    ]


@needs_pg_cron
def test_jobs_that_do_not_run_fail(db, scheduled):
    db.execute("update flashsale_data.scheduler set scheduled_at = now() - interval '4 minutes'")
    assert problems(pg_cron_checks.pg_cron, db) == [("failed", "no sweep has run")]
    db.execute("update flashsale_data.scheduler set last_run_at = now() - interval '4 minutes'")
    ((status, said),) = problems(pg_cron_checks.pg_cron, db)
    assert (status, "the last sweep was at" in said) == ("failed", True)


@needs_pg_cron
def test_a_dead_launcher_fails(db, scheduled, monkeypatch):
    monkeypatch.setattr(pg_cron_checks, "_LAUNCHERS", "select 0, 0")
    assert problems(pg_cron_checks.pg_cron, db) == [("failed", "pg_cron's launcher is not running")]


def test_a_missing_pg_cron_is_a_warning_unless_another_scheduler_sweeps(db, monkeypatch):
    monkeypatch.setattr(pg_cron_checks, "cron_database", lambda conn: None)
    ((status, said),) = problems(pg_cron_checks.pg_cron, db)
    assert status == "warning"
    assert said.endswith("the sweep does not run")
    db.execute("call flashsale.sweep()")
    assert problems(pg_cron_checks.pg_cron, db) == []


# audit


def test_a_violated_invariant_fails(db):
    create_product(db)
    assert problems(audit.audit, db) == []
    db.execute("update flashsale_data.stock set paid = 1")
    assert ("failed", "paid_counter: product 1 counts 1 paid, its orders add up to 0") in problems(
        audit.audit, db
    )


# the command


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
    assert lines[at + 1].strip() == "→ alter system set fsync = on; select pg_reload_conf()"
    assert lines[-1].endswith("warning") and "failed" in lines[-1]


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
            "secrets", "database", "server", "clock", "durability", "settings", "migrations", "functions",
            "grants", "roles", "sale_settings", "pg_cron", "audit",
        }  # fmt: skip
        assert flashsale("doctor", FLASHSALE_DATABASE_URL=url).stdout.endswith("warnings\n") or with_pg_cron
        with psycopg.connect(url) as conn:
            assert one(conn, "select count(*) from pg_class where relnamespace = pg_my_temp_schema()") == 0
    finally:
        stop_server(server)
