"""The pg_cron jobs and the role that runs them."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
import pytest

from flashsale.database import pg_cron
from flashsale.database.migrations import migrate
from flashsale.errors import UserError
from flashsale.local.cluster import SUPERUSER, Cluster
from tests.support.clusters import running_cluster
from tests.support.database import needs_pg_cron
from tests.support.waiting import wait_until


@pytest.fixture
def scheduled(db: psycopg.Connection, database_url: str) -> Iterator[str]:
    """Schedules the jobs of the test's database; yields the message."""
    yield pg_cron.schedule(db, database_url)
    # Later databases have the same name and must not inherit the jobs.
    pg_cron.unschedule(db, database_url)


def jobs(cron: psycopg.Connection, database: str) -> list[tuple[str, ...]]:
    return cron.execute(
        "select jobname, schedule, username, database, command from cron.job"
        " where jobname like '%% ' || %s order by command",
        (database,),
    ).fetchall()


@needs_pg_cron
def test_scheduling_is_idempotent(db, database_url, cron, scheduled):
    name = db.info.dbname
    version = cron.execute("select extversion from pg_extension where extname = 'pg_cron'").fetchone()[0]
    finer = not version.startswith(("1.3", "1.4"))
    when = "5 seconds" if finer else "* * * * *"
    before = jobs(cron, name)
    assert before == [
        (f"flashsale sweep {name}", when, "flashsale_sweep", name, "call flashsale.sweep()"),
        (f"flashsale forget runs {name}", "17 * * * *", "flashsale_sweep", "postgres", pg_cron.PURGE_RUNS),
    ]
    assert pg_cron.schedule(db, database_url) == scheduled == f"scheduled flashsale.sweep() at '{when}'"
    assert jobs(cron, name) == before
    assert db.execute(
        "select schedule, scheduled_at is not null from flashsale_data.scheduler"
    ).fetchall() == [(when, True)]


@needs_pg_cron
@pytest.mark.parametrize("job", ["sweep", "tidy"])
def test_a_job_of_another_user_or_version_is_replaced(db, database_url, cron, scheduled, job):
    name = db.info.dbname
    cron.execute(
        "select cron.schedule_in_database(%s, '* * * * *', 'select 1', %s)", (f"flashsale {job} {name}", name)
    )
    assert len(jobs(cron, name)) == 3
    pg_cron.schedule(db, database_url)
    assert [user for _, _, user, *_ in jobs(cron, name)] == 2 * [pg_cron.JOB_ROLE]


@needs_pg_cron
def test_the_role_of_the_jobs_can_run_them_and_read_no_table(cluster, db, scheduled):
    with psycopg.connect(cluster.url(pg_cron.JOB_ROLE, db.info.dbname), autocommit=True) as conn:
        conn.execute(pg_cron.SWEEP)
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            conn.execute("select from flashsale_data.holds")
    with psycopg.connect(cluster.url(pg_cron.JOB_ROLE, "postgres"), autocommit=True) as conn:
        conn.execute(pg_cron.PURGE_RUNS)


@needs_pg_cron
def test_unscheduling_removes_all_jobs(db, database_url, cron, scheduled):
    pg_cron.unschedule(db, database_url)
    assert jobs(cron, db.info.dbname) == []
    assert db.execute("select schedule from flashsale_data.scheduler").fetchone() == (None,)


@pytest.fixture
def migrator(cluster: Cluster, db: psycopg.Connection, cron: psycopg.Connection) -> Iterator[str]:
    """URL of a role that may migrate the test's database, and has no right in pg_cron."""
    cron.execute("create extension if not exists pg_cron")
    db.execute("create role test_migrator login createrole")
    db.execute(f"grant create on database {db.info.dbname} to test_migrator")
    db.execute("grant flashsale_owner to test_migrator with admin option")
    yield cluster.url("test_migrator", db.info.dbname)
    cron.execute("delete from cron.job where username = 'test_migrator'")
    for conn in (db, cron):
        conn.execute("drop owned by test_migrator")
    db.execute("drop role test_migrator")


def statements(said: str) -> list[str]:
    """What a message has a superuser run; all of it may run in pg_cron's database."""
    return re.findall(r"(?:grant|create|alter) [^;.]*", said)


def schedule_as(url: str) -> str:
    with psycopg.connect(url, autocommit=True) as conn:
        return pg_cron.schedule(conn, url)


def no_one_may_connect(db: psycopg.Connection) -> None:
    """What docs/operations.md recommends: only roles that are named may connect."""
    for name in (db.info.dbname, "postgres"):
        db.execute(f"revoke connect, temporary on database {name} from public")


@needs_pg_cron
def test_one_message_names_all_rights_that_a_role_lacks_and_then_the_jobs_are_its_own(db, cron, migrator):
    db.execute("alter role test_migrator noinherit")
    said = schedule_as(migrator)
    assert said.startswith("WARNING: nothing sweeps")
    for statement in statements(said):
        cron.execute(statement)
    for _ in range(2):
        assert schedule_as(migrator).startswith("scheduled ")
        assert [job[2] for job in jobs(cron, db.info.dbname)] == 2 * ["test_migrator"]


@needs_pg_cron
def test_a_refused_migration_names_what_pg_cron_requires_too(db, cron, migrator):
    db.execute(f"revoke create on database {db.info.dbname} from test_migrator")
    with pytest.raises(UserError, match="lacks rights to migrate") as refused:
        migrate(migrator, say=lambda _: None)
    for statement in statements(str(refused.value)):
        cron.execute(statement)
    said: list[str] = []
    migrate(migrator, say=said.append)
    assert said[-1].startswith("scheduled ")


@needs_pg_cron
def test_a_database_that_not_everybody_may_connect_to_is_still_swept(cluster, db, database_url, cron):
    no_one_may_connect(db)
    try:
        assert pg_cron.schedule(db, database_url).startswith("scheduled ")
        for name in (db.info.dbname, "postgres"):
            psycopg.connect(cluster.url(pg_cron.JOB_ROLE, name)).close()
    finally:
        pg_cron.unschedule(db, database_url)
        db.execute("grant connect, temporary on database postgres to public")


@needs_pg_cron
def test_the_role_of_the_jobs_is_repaired(cluster, db, database_url, scheduled):
    db.execute(f"alter role {pg_cron.JOB_ROLE} nologin noinherit")
    pg_cron.schedule(db, database_url)
    with psycopg.connect(cluster.url(pg_cron.JOB_ROLE, db.info.dbname), autocommit=True) as conn:
        conn.execute(pg_cron.SWEEP)


@contextmanager
def refusing_jobs(cron: psycopg.Connection, _: psycopg.Connection) -> Iterator[str]:
    """pg_cron refuses a job, with its one SQLSTATE for almost everything."""
    cron.execute(
        "create function public.refuse() returns trigger language plpgsql as"
        " $$ begin raise exception 'too many jobs' using errcode = 'XX000'; end $$;"
        " create trigger refuse before insert or update on cron.job execute function public.refuse()"
    )
    try:
        yield "too many jobs"
    finally:
        cron.execute("drop function public.refuse cascade")


@contextmanager
def locking_jobs(cron: psycopg.Connection, _: psycopg.Connection) -> Iterator[str]:
    """A transaction has locked the table of jobs."""
    with cron.transaction():
        cron.execute("lock table cron.job")
        yield "lock timeout"


@contextmanager
def read_only(cron: psycopg.Connection, _: psycopg.Connection) -> Iterator[str]:
    """pg_cron's database is read-only."""
    cron.execute("alter database postgres set default_transaction_read_only = on")
    try:
        yield "read-only transaction"
    finally:
        cron.execute("set default_transaction_read_only = off")
        cron.execute("alter database postgres reset default_transaction_read_only")


@contextmanager
def without_connections(_: psycopg.Connection, db: psycopg.Connection) -> Iterator[str]:
    """pg_cron's database accepts no connections."""
    db.execute("alter database postgres allow_connections false")
    try:
        yield "is not currently accepting connections"
    finally:
        db.execute("alter database postgres allow_connections true")


@needs_pg_cron
@pytest.mark.parametrize("situation", [refusing_jobs, locking_jobs, read_only, without_connections])
def test_whatever_pg_cron_objects_to_is_a_warning(db, database_url, cron, monkeypatch, situation):
    monkeypatch.setattr(pg_cron, "_LOCK_TIMEOUT", "50ms")
    cron.execute("create extension if not exists pg_cron")
    said: list[str] = []
    with situation(cron, db) as reason:
        migrate(database_url, say=said.append)
    assert said[-2] == "loaded sql/"
    assert said[-1].startswith(
        "WARNING: nothing sweeps lapsed holds and overdue orders: pg_cron does not accept"
    )
    assert reason in said[-1]
    assert db.execute("select scheduler from flashsale.readiness()").fetchone() == ("not_scheduled",)
    pg_cron.schedule(db, database_url)
    assert len(jobs(cron, db.info.dbname)) == 2
    pg_cron.unschedule(db, database_url)


@needs_pg_cron
def test_jobs_that_run_stay_on_record_if_they_cannot_be_changed(db, database_url, cron, scheduled):
    db.execute(pg_cron.SWEEP)
    with refusing_jobs(cron, db):
        said = pg_cron.schedule(db, database_url)
    assert said.startswith("WARNING: the jobs of pg_cron are unchanged: ")
    assert db.execute("select scheduler from flashsale.readiness()").fetchone() == ("alive",)


@needs_pg_cron
def test_jobs_of_a_dropped_owner_and_of_dropped_databases_are_removed_and_no_others(
    db, database_url, cron, scheduled
):
    name = db.info.dbname
    cron.execute("update cron.job set username = 'gone' where jobname like '%% ' || %s", (name,))
    owners = {
        "flashsale sweep gone": "gone", "flashsale forget runs gone": "postgres",
        "flashsale sweep template1": "postgres", "nightly gone": "postgres",
    }  # fmt: skip
    for job, owner in owners.items():
        cron.execute(
            "insert into cron.job (jobname, schedule, command, nodeport, database, username)"
            " values (%s, '0 0 30 2 *', 'select 1', 5432, 'gone', %s)",
            (job, owner),
        )
    try:
        pg_cron.schedule(db, database_url)
        assert [user for _, _, user, *_ in jobs(cron, name)] == 2 * [pg_cron.JOB_ROLE]
        left = cron.execute("select jobname from cron.job where database = 'gone' order by 1").fetchall()
        assert left == [("flashsale sweep template1",), ("nightly gone",)]
    finally:
        cron.execute("delete from cron.job where database = 'gone'")


@needs_pg_cron
@pytest.mark.slow  # old versions of pg_cron run jobs at full minutes only
@pytest.mark.parametrize("by", ["superuser", "migrator"])
def test_pg_cron_runs_the_sweep(db, database_url, cron, migrator, by):
    def has_run() -> bool:
        return db.execute("select last_run_at is not null from flashsale_data.scheduler").fetchone()[0]

    if by == "migrator":
        for statement in statements(schedule_as(migrator)):
            cron.execute(statement)
    db.execute(f"grant connect on database {db.info.dbname} to test_migrator")
    db.execute("grant connect on database postgres to test_migrator")
    no_one_may_connect(db)
    try:
        assert not has_run()
        assert schedule_as(migrator if by == "migrator" else database_url).startswith("scheduled ")
        wait_until(has_run, "pg_cron has run the sweep", timeout=90)
    finally:
        pg_cron.unschedule(db, database_url)
        db.execute("grant connect, temporary on database postgres to public")


@pytest.mark.slow
def test_without_pg_cron_it_migrates_with_a_warning():
    with running_cluster({"fsync": "off"}, with_pg_cron=False) as cluster:
        said: list[str] = []
        url = cluster.url(SUPERUSER, "postgres")
        migrate(url, say=said.append)
        assert said[-1].startswith("WARNING: nothing sweeps")
        assert "shared_preload_libraries" in said[-1]
        with psycopg.connect(url) as db:
            assert db.execute("select scheduler from flashsale.readiness()").fetchone() == ("not_installed",)
