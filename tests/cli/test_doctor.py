"""`flashsale doctor`: each check can fail, and says what to do about it."""

import json
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import psycopg
import pytest
from pytest_postgresql.janitor import DatabaseJanitor

from api.database.schema_version import migration_ids
from flashsale.database import pg_cron as scheduler
from flashsale.database.migrations import migrate
from flashsale.doctor import diagnosis
from flashsale.local.cluster import PORT, SUPERUSER, Cluster, find_binary, has_pg_cron, stop_server
from tests.support.database import needs_pg_cron
from tests.support.sale_steps import create_product, one

SECRET = "whsec_" + "c2VjcmV0" * 6


@contextmanager
def after(db: psycopg.Connection, *statements: str) -> Iterator[psycopg.Connection]:
    """The database as `statements` leave it, for the session that has run them, until the end."""
    with db.transaction(force_rollback=True):
        for statement in statements:
            db.execute(statement)
        yield db


def found(check, *arguments) -> list[tuple[str, str]]:
    """What a check finds that is not ok; each with something to do about it."""
    findings = list(check(*arguments))
    assert findings, "a check says something in any case"
    assert {finding.status == "ok" for finding in findings} == {not any(f.remedy for f in findings)}
    return [(finding.status, finding.found) for finding in findings if finding.status != "ok"]


def only(check, *arguments) -> diagnosis.Finding:
    (finding,) = check(*arguments)
    return finding


# secrets


def test_no_secret_is_a_warning():
    assert found(diagnosis.secrets, {}) == [
        ("warning", "FLASHSALE_WEBHOOK_SECRETS is not set here: nobody's webhook can be verified")
    ]


@pytest.mark.parametrize("secret", ["hunter2", "whsec_short", "whsec_%%%%", f"{SECRET},whsec_"])
def test_a_secret_nobody_can_sign_with_is_wrong_and_not_shown(secret):
    ((status, said),) = found(diagnosis.secrets, {"FLASHSALE_WEBHOOK_SECRETS": secret})
    assert (status, secret in said) == ("wrong", False)


def test_secrets_are_counted():
    assert only(diagnosis.secrets, {"FLASHSALE_WEBHOOK_SECRETS": f"{SECRET},{SECRET}"}).found.startswith("2 ")


# database and server


def test_a_database_that_is_away_is_what_is_wrong(flashsale):
    result = flashsale(
        "doctor", "--json", FLASHSALE_DATABASE_URL="postgresql://127.0.0.1:1/x?connect_timeout=2"
    )
    assert result.exit_code == 1
    last = json.loads(result.stdout)["findings"][-1]
    assert (last["check"], last["status"]) == ("database", "wrong")
    assert last["found"].startswith("cannot reach the database: ")


def test_no_database_at_all_too(flashsale, tmp_path):
    result = flashsale("doctor", FLASHSALE_DATABASE_URL="", FLASHSALE_DATA_DIR=str(tmp_path))
    assert result.exit_code == 1
    assert "start the private cluster with: make up" in result.stdout


def test_an_old_server_is_wrong(db, monkeypatch):
    assert found(diagnosis.server, db) == []
    monkeypatch.setattr(diagnosis, "OLDEST_SERVER", 990000)
    assert "99 or newer" in only(diagnosis.server, db).remedy


def test_an_encoding_that_lacks_half_the_worlds_names_is_wrong(cluster):
    with DatabaseJanitor(
        user=SUPERUSER, host=str(cluster.socket_directory), port=PORT, dbname="flashsale_latin"
    ):
        with psycopg.connect(cluster.url(SUPERUSER, "postgres"), autocommit=True) as conn:
            conn.execute("drop database flashsale_latin")
            conn.execute("create database flashsale_latin encoding latin1 locale 'C' template template0")
        with psycopg.connect(cluster.url(SUPERUSER, "flashsale_latin")) as conn:
            assert found(diagnosis.server, conn) == [("wrong", "the database's encoding is LATIN1")]


# clock


@pytest.mark.parametrize(
    ("ahead", "status", "said"),
    [
        (0, "ok", "agree"),
        (-5, "warning", "5.0 s ahead of"),
        (5, "warning", "5.0 s behind"),
        (90, "wrong", "90.0 s behind"),
    ],
)
def test_clocks_apart_are_noticed(db, monkeypatch, ahead, status, said):
    monkeypatch.setattr(diagnosis, "time", SimpleNamespace(time=lambda: time.time() + ahead))
    finding = only(diagnosis.clock, db)
    assert finding.status == status
    assert said in finding.found


# durability and settings


def test_a_server_that_forgets_commits_is_wrong(db):
    """As the suite's own does."""
    assert sorted(found(diagnosis.durability, db)) == [
        ("wrong", "fsync is off for the server"),
        ("wrong", "full_page_writes is off for the server"),
        ("wrong", "synchronous_commit is off for the server"),
    ]


@pytest.mark.parametrize(
    ("whom", "where"),
    [
        ("database flashsale_cli", "database flashsale_cli"),
        ("role flashsale_app", "role flashsale_app"),
        ("role flashsale_app in database flashsale_cli", "role flashsale_app in database flashsale_cli"),
    ],
)
def test_so_is_one_that_forgets_somebodys(db, whom, where):
    with after(db, f"alter {whom} set synchronous_commit = off"):
        finding = next(
            f for f in diagnosis.durability(db) if f.found == f"synchronous_commit is off for {where}"
        )
        assert finding.remedy == f"alter {whom} set synchronous_commit = on"
        db.execute(finding.remedy)
        assert ("wrong", finding.found) not in found(diagnosis.durability, db)


def test_settings_that_serve_are_ok(db):
    assert found(diagnosis.settings, db) == []


@pytest.mark.parametrize(
    "setting", ["default_transaction_isolation = 'repeatable read'", "default_transaction_read_only = on"]
)
def test_settings_that_refuse_callers_are_wrong(db, setting):
    name, _, value = setting.partition(" = ")
    with after(db, f"alter database flashsale_cli set {setting}"):
        ((status, said),) = found(diagnosis.settings, db)
        assert status == "wrong"
        assert said.startswith(f"{name} is {value.strip(chr(39))} for database flashsale_cli")
        db.execute(only(diagnosis.settings, db).remedy)
        assert found(diagnosis.settings, db) == []


def test_few_locks_are_a_warning(db, monkeypatch):
    monkeypatch.setattr(diagnosis, "LOCKS", 512)
    assert found(diagnosis.settings, db) == [("warning", "max_locks_per_transaction is 256 for the server")]


# migrations


def test_a_pending_migration_is_wrong(db):
    newest = migration_ids()[-1]
    assert found(diagnosis.migrations, db) == []
    with after(db, f"delete from flashsale_migrations._yoyo_migration where migration_id = '{newest}'"):
        assert found(diagnosis.migrations, db) == [("wrong", f"pending: {newest}")]


def test_a_database_ahead_of_the_checkout_is_wrong(db):
    with after(
        db,
        "update flashsale_migrations._yoyo_migration set migration_id = '9999.next'"
        " where migration_id ~ '^0001'",
    ):
        assert found(diagnosis.migrations, db) == [
            ("wrong", "pending: 0001.roles-and-schemas"),
            ("wrong", "the database is ahead of this checkout by 9999.next"),
        ]


def test_an_empty_database_is_told_what_to_do(flashsale, empty_database):
    findings = json.loads(flashsale("doctor", "--json", FLASHSALE_DATABASE_URL=empty_database).stdout)[
        "findings"
    ]
    assert findings[-1] == {
        "check": "migrations",
        "status": "wrong",
        "found": "this database was never migrated",
        "remedy": "run: flashsale migrate",
    }


# functions


def test_a_migrated_database_has_what_sql_says(db):
    assert found(diagnosis.functions, db) == []


def test_another_checkouts_sql_is_noticed(db):
    with after(db, "update flashsale_data.schema_state set digest = 'other'"):
        assert found(diagnosis.functions, db) == [
            ("wrong", "the sql/ that was loaded is not this checkout's")
        ]


DRIFT = {
    "a body": (
        "create or replace function flashsale.record_sweep() returns void language sql"
        " volatile security definer set search_path = pg_catalog, pg_temp as 'select null::void'",
        "flashsale.record_sweep is not what its file says",
    ),
    "a setting": (
        "alter function flashsale.audit() reset search_path",
        "flashsale.audit is not what its file says",
    ),
    "whose rights": (
        "alter procedure flashsale.sweep() security definer",
        "flashsale.sweep is not what its file says",
    ),
    "a comment": (
        "comment on function flashsale_data.announce_ledger_write() is 'mine'",
        "flashsale_data.announce_ledger_write is not what its file says",
    ),
    "a view": (
        "create or replace view flashsale.settings as select hold_time, payment_window, 0 as inbox_limit,"
        " inbox_keep from flashsale_data.settings",
        "flashsale.settings is not what its file says",
    ),
    "one missing": (
        "drop function flashsale.release_hold(bigint)",
        "flashsale.release_hold is missing",
    ),
    "one too many": (
        "create function flashsale.mine() returns int language sql as 'select 1'",
        "flashsale.mine has no file",
    ),
    "an overload": (
        "create function flashsale.place_hold(bigint) returns int language sql as 'select 1'",
        "flashsale.place_hold is not what its file says",
    ),
    "a view too many": (
        "create view flashsale_data.mine as select 1 as one",
        "flashsale_data.mine has no file",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("statement", "said"), DRIFT.values(), ids=DRIFT)
def test_what_somebody_changed_by_hand_is_noticed(db, statement, said):
    with after(db, statement):
        assert found(diagnosis.functions, db) == [("wrong", said)]


def test_looking_leaves_nothing_behind_and_locks_nothing_of_others(db, connect):
    catalog = "select count(*), md5(string_agg(oid::text || xmin::text, ',' order by oid)) from pg_proc"
    before = db.execute(catalog).fetchone()
    watcher = connect()
    pid = db.info.backend_pid
    with db.transaction():
        assert found(diagnosis.functions, db) == []
        strong = watcher.execute(
            "select relation::regclass::text, mode from pg_locks where pid = %s and locktype = 'relation'"
            " and relation in (select oid from pg_class where relnamespace in"
            "   ('flashsale'::regnamespace, 'flashsale_data'::regnamespace)) and mode <> 'AccessShareLock'",
            (pid,),
        ).fetchall()
    assert strong == []
    assert db.execute(catalog).fetchone() == before


# grants and roles

OPEN = {
    "public may call": (
        "grant execute on function flashsale.audit() to public",
        "public may use flashsale.audit",
    ),
    "the api may call too much": (
        "grant execute on function flashsale.purge(interval) to flashsale_api",
        "flashsale_api may use flashsale.purge",
    ),
    "the api may call too little": (
        "revoke execute on function flashsale.get_product(bigint) from flashsale_api",
        "flashsale_api may not use flashsale.get_product",
    ),
    "operators see too little": (
        "revoke select on flashsale.stock from flashsale_ops",
        "flashsale_ops may not use flashsale.stock",
    ),
    "a table is open": (
        "grant insert on flashsale_data.payments to flashsale_app",
        "flashsale_app may insert flashsale_data.payments",
    ),
    "a sequence is open": (
        "grant usage on sequence flashsale_data.order_ids to public",
        "public may usage flashsale_data.order_ids",
    ),
    "the closed schema is open": (
        "grant usage on schema flashsale_data to flashsale_api",
        "flashsale_api may usage in schema flashsale_data",
    ),
    "anybody may create": (
        "grant create on schema flashsale to public",
        "public may create in schema flashsale",
    ),
    "the schema is closed": (
        "revoke usage on schema flashsale from flashsale_api",
        "flashsale_api lacks usage on schema flashsale",
    ),
    "a table is somebody else's": (
        "alter table flashsale_data.payments owner to postgres",
        "table flashsale_data.payments belongs to postgres",
    ),
    "a function is somebody else's": (
        "alter function flashsale.audit() owner to postgres",
        "routine flashsale.audit() belongs to postgres",
    ),
}  # fmt: skip


def test_a_migrated_database_grants_what_sql_says(db):
    assert found(diagnosis.grants, db) == []


@pytest.mark.parametrize(("statement", "said"), OPEN.values(), ids=OPEN)
def test_a_grant_that_is_not_ours_is_noticed_and_can_be_put_right(db, statement, said):
    with after(db, statement):
        assert ("wrong", said) in found(diagnosis.grants, db)
        for finding in list(diagnosis.grants(db)):
            if finding.remedy != diagnosis.MIGRATE:
                db.execute(finding.remedy)
                assert ("wrong", said) not in found(diagnosis.grants, db)


def test_a_service_of_ones_own_may_have_been_given_more(db):
    with after(db, "grant execute on function flashsale.read_events(bigint, int) to flashsale_app"):
        assert found(diagnosis.grants, db) == []


ROLES = {
    "one can log in": ("alter role flashsale_api login", "role flashsale_api can log in, or more"),
    "one is a superuser": (
        "alter role flashsale_owner superuser",
        "role flashsale_owner can log in, or more",
    ),
    "one is in another": (
        "grant flashsale_owner to flashsale_ops",
        "role flashsale_ops is in flashsale_owner",
    ),
    "one is not in the other": (
        "revoke flashsale_api from flashsale_ops",
        "role flashsale_ops is not in flashsale_api",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("statement", "said"), ROLES.values(), ids=ROLES)
def test_roles_that_are_more_or_less_than_they_say_are_noticed_and_can_be_put_right(db, statement, said):
    with after(db, statement):
        assert found(diagnosis.roles, db) == [("wrong", said)]
        db.execute(only(diagnosis.roles, db).remedy)
        assert found(diagnosis.roles, db) == []


def test_a_missing_role_is_noticed(db):
    with after(db, "alter role flashsale_ops rename to flashsale_gone"):
        assert ("wrong", "role flashsale_ops is missing") in found(diagnosis.roles, db)


def test_a_server_without_a_role_to_log_in_as_is_a_warning(db):
    with after(db, "alter role flashsale_app nologin"):
        others = [row[0] for row in db.execute(diagnosis._LOGINS)]
        for other in others:
            db.execute(f"alter role {other} nologin")
        assert found(diagnosis.roles, db) == [("warning", "no login role is in flashsale_api")]


# sale_settings


def test_what_the_sale_is_set_to_is_said(db):
    assert only(diagnosis.sale_settings, db).found == "holds last 2 min, payments may take 15 min"


@pytest.mark.parametrize("change", ["'1 second'", "p_payment_window => '1 second'", "p_inbox_limit => 0"])
def test_settings_left_from_a_trial_are_a_warning(db, change):
    db.execute(f"select flashsale.change_settings({change})")
    ((status, _),) = found(diagnosis.sale_settings, db)
    assert status == "warning"


# pg_cron


@needs_pg_cron
def test_on_schedule_all_is_well(db, scheduled):
    assert only(diagnosis.pg_cron, db).found == "installed, loaded, alive and on schedule; no run yet"


@needs_pg_cron
def test_missing_jobs_are_wrong(db, scheduled, database_url):
    scheduler.unschedule(db, database_url)
    assert found(diagnosis.pg_cron, db) == [
        ("wrong", f"there is no job 'flashsale sweep {scheduled}'"),
        ("wrong", f"there is no job 'flashsale forget runs {scheduled}'"),
    ]


@needs_pg_cron
def test_a_job_switched_off_is_wrong_and_can_be_put_right(db, scheduled, cron):
    cron.execute("update cron.job set active = false where jobname = %s", (f"flashsale sweep {scheduled}",))
    assert found(diagnosis.pg_cron, db) == [("wrong", f"job 'flashsale sweep {scheduled}' is switched off")]
    cron.execute(only(diagnosis.pg_cron, db).remedy.partition(": ")[2])
    assert found(diagnosis.pg_cron, db) == []


@needs_pg_cron
def test_a_job_that_does_something_else_is_wrong(db, scheduled, cron):
    cron.execute(
        "update cron.job set command = 'select 1' where jobname = %s", (f"flashsale sweep {scheduled}",)
    )
    ((status, said),) = found(diagnosis.pg_cron, db)
    assert (status, "does something else: select 1" in said) == ("wrong", True)


@needs_pg_cron
def test_a_job_that_failed_is_wrong(db, scheduled, cron):
    cron.execute(
        "insert into cron.job_run_details (jobid, status, return_message, start_time, end_time)"
        " select jobid, 'failed', E'ERROR: no\\nsuch thing', now(), now() from cron.job where jobname = %s",
        (f"flashsale sweep {scheduled}",),
    )
    assert found(diagnosis.pg_cron, db) == [
        ("wrong", f"job 'flashsale sweep {scheduled}' failed: ERROR: no such thing")
    ]


@needs_pg_cron
def test_jobs_that_do_not_run_are_wrong(db, scheduled):
    db.execute("update flashsale_data.scheduler set scheduled_at = now() - interval '4 minutes'")
    assert found(diagnosis.pg_cron, db) == [("wrong", "sweep() never ran")]
    db.execute("update flashsale_data.scheduler set last_run_at = now() - interval '4 minutes'")
    ((status, said),) = found(diagnosis.pg_cron, db)
    assert (status, "sweep() last ran at" in said) == ("wrong", True)


@needs_pg_cron
def test_a_dead_launcher_is_wrong(db, scheduled, monkeypatch):
    monkeypatch.setattr(diagnosis, "_LAUNCHERS", "select 0, 0")
    assert found(diagnosis.pg_cron, db) == [("wrong", "pg_cron is loaded, but its launcher is dead")]


def test_without_pg_cron_it_warns_unless_somebody_else_sweeps(db, monkeypatch):
    monkeypatch.setattr(scheduler, "cron_database", lambda conn: None)
    ((status, said),) = found(diagnosis.pg_cron, db)
    assert status == "warning"
    assert said.endswith("nothing sweeps")
    db.execute("call flashsale.sweep()")
    assert found(diagnosis.pg_cron, db) == []


# audit


def test_what_audit_finds_is_wrong(db):
    create_product(db)
    assert found(diagnosis.audit, db) == []
    db.execute("update flashsale_data.stock set paid = 1")
    assert ("wrong", "paid_counter: product 1 counts 1 paid, its orders add up to 0") in found(
        diagnosis.audit, db
    )


# the command


def test_who_may_not_look_is_told_so_check_by_check(flashsale, cluster, db):
    result = flashsale(
        "doctor", "--json", FLASHSALE_DATABASE_URL=cluster.url("flashsale_app", db.info.dbname)
    )
    blind = {f["check"] for f in json.loads(result.stdout)["findings"] if "may not look" in f["found"]}
    assert {"migrations", "functions", "sale_settings", "audit"} <= blind


def test_it_says_what_is_wrong_and_exits_with_1(flashsale):
    result = flashsale("doctor")
    assert result.exit_code == 1
    lines = result.stdout.splitlines()
    at = next(n for n, line in enumerate(lines) if "fsync is off for the server" in line)
    assert lines[at].split()[:2] == ["wrong", "durability"]
    assert lines[at + 1].strip() == "→ alter system set fsync = on; select pg_reload_conf()"
    assert lines[-1].endswith("warning") and "wrong" in lines[-1]


@pytest.fixture
def own_cluster() -> Iterator[Cluster]:
    folder = Path(tempfile.mkdtemp(prefix="flashsale-test-"))
    folder.chmod(0o711)
    yield Cluster(folder)
    shutil.rmtree(folder)


@pytest.mark.slow
@pytest.mark.parametrize("with_pg_cron", [True, False])
def test_a_fresh_private_cluster_is_fit_for_a_sale(flashsale, own_cluster, with_pg_cron):
    """With its own settings, unlike the suite's; without pg_cron it is warned of that, and no more."""
    own_cluster.create()
    server = own_cluster.start(with_pg_cron=with_pg_cron)
    try:
        url = own_cluster.url(SUPERUSER, "postgres")
        migrate(url, say=lambda _: None)
        with psycopg.connect(url) as conn:
            conn.execute("create role shop login in role flashsale_api")
        result = flashsale("doctor", "--json", FLASHSALE_DATABASE_URL=url, FLASHSALE_WEBHOOK_SECRETS=SECRET)
        told = json.loads(result.stdout)
        assert (result.exit_code, told["ok"]) == (0, True), told
        odd = {f["check"] for f in told["findings"] if f["status"] != "ok"}
        assert odd == (set() if with_pg_cron and has_pg_cron(find_binary("postgres")) else {"pg_cron"})
        assert {f["check"] for f in told["findings"]} == {
            "secrets", "database", "server", "clock", "durability", "settings", "migrations", "functions",
            "grants", "roles", "sale_settings", "pg_cron", "audit",
        }  # fmt: skip
        assert flashsale("doctor", FLASHSALE_DATABASE_URL=url).stdout.endswith("warnings\n") or with_pg_cron
        with psycopg.connect(url) as conn:
            assert one(conn, "select count(*) from pg_class where relnamespace = pg_my_temp_schema()") == 0
    finally:
        stop_server(server)
