"""The pg_cron jobs and the role that runs them."""

from collections.abc import Iterator

import psycopg
import pytest

from flashsale.database import pg_cron
from flashsale.database.migrations import migrate
from flashsale.local.cluster import SUPERUSER
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


@needs_pg_cron
@pytest.mark.slow  # old versions of pg_cron run jobs at full minutes only
def test_pg_cron_runs_the_sweep(db, database_url):
    def has_run() -> bool:
        return db.execute("select last_run_at is not null from flashsale_data.scheduler").fetchone()[0]

    assert not has_run()
    pg_cron.schedule(db, database_url)
    try:
        wait_until(has_run, "pg_cron has run the sweep", timeout=90)
    finally:
        pg_cron.unschedule(db, database_url)


@needs_pg_cron
def test_a_role_without_rights_gets_a_warning(cluster, db, database_url):
    db.execute("create role test_migrator login createrole")
    try:
        db.execute(f"grant create on database {db.info.dbname} to test_migrator")
        db.execute("grant flashsale_owner to test_migrator")
        url = cluster.url("test_migrator", db.info.dbname)
        with psycopg.connect(url, autocommit=True) as conn:
            assert "grant pg_read_all_settings to test_migrator" in pg_cron.schedule(conn, url)
            db.execute("grant pg_read_all_settings to test_migrator")
            said = pg_cron.schedule(conn, url)
        assert said.startswith("WARNING: nothing sweeps")
        assert "role test_migrator cannot schedule jobs" in said
    finally:
        db.execute("drop owned by test_migrator")
        db.execute("drop role test_migrator")


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
