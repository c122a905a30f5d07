"""`flashsale doctor`: the owners of pg_cron's jobs, what these may do, and jobs that nothing needs.

Each test makes the situation, follows the remedy as it is printed, and sees the finding gone.
"""

import re
from collections.abc import Callable, Iterator

import psycopg
import pytest

from flashsale.database import pg_cron, roles
from flashsale.doctor import diagnosis
from flashsale.doctor import pg_cron as pg_cron_checks
from flashsale.doctor import roles as role_checks
from flashsale.doctor.finding import Finding
from tests.support.database import needs_pg_cron
from tests.support.waiting import wait_until

Follow = Callable[[Finding], None]


def not_ok(findings: Iterator[Finding]) -> list[Finding]:
    return [finding for finding in findings if finding.status != "ok"]


@pytest.fixture
def follow(db: psycopg.Connection, cron: psycopg.Connection, flashsale) -> Follow:
    """Does what a remedy says."""

    def run(finding: Finding) -> None:
        remedy = finding.remedy or ""
        if remedy.startswith("run: flashsale "):
            assert flashsale(*remedy.removeprefix("run: flashsale ").split()).exit_code == 0
        elif remedy.startswith("in database postgres: "):
            cron.execute(remedy.partition(": ")[2])
        else:
            db.execute(remedy)

    return run


def stop_jobs(cron: psycopg.Connection) -> None:
    """pg_cron must not run the jobs of a migration during the test: on February 30th."""
    cron.execute("update cron.job set schedule = '0 0 30 2 *'")


JOB = pg_cron.JOB_ROLE
# OURS is the name of the test's database.
SITUATIONS = {
    "the owner was dropped": (
        "update cron.job set username = 'gone' where jobname = 'flashsale sweep OURS'",
        "job 'flashsale sweep OURS' of role gone, which does not exist, keeps pg_cron from running"),
    "the owner of another application's job was dropped": (
        "insert into cron.job (jobname, schedule, command, nodeport, username)"
        " values ('nightly', '0 0 30 2 *', 'select 1', 5432, 'gone')",
        "job 'nightly' of role gone, which does not exist, keeps pg_cron from running"),
    "the owner of a job of another database was dropped": (
        "insert into cron.job (jobname, schedule, command, nodeport, username)"
        " values ('flashsale sweep template1', '0 0 30 2 *', 'select 1', 5432, 'gone')",
        "job 'flashsale sweep template1' of role gone, which does not exist, keeps pg_cron from running;"
        " it sweeps database template1, where flashsale migrate schedules it again"),
    "the owner cannot log in": (
        f"alter role {JOB} nologin",
        f"job 'flashsale sweep OURS' runs as role {JOB}, which cannot log in"),
    "the owner may not connect": (
        f"revoke connect on database OURS from public, {JOB}",
        f"job 'flashsale sweep OURS' runs as role {JOB},"
        " which cannot connect to database OURS"),
    "the owner may not connect to pg_cron's database": (
        f"revoke connect on database postgres from public, {JOB}",
        f"job 'flashsale forget runs OURS' runs as role {JOB},"
        " which cannot connect to database postgres"),
    "the owner is no member": (
        f"revoke flashsale_ops from {JOB}",
        f"job 'flashsale sweep OURS' runs as role {JOB}, which may not call flashsale.sweep()"),
    "the owner may not use schema cron": (
        f"revoke usage on schema cron from {JOB}",
        f"job 'flashsale forget runs OURS' runs as role {JOB}, which may not use schema cron"),
    "the database was dropped": (
        "insert into cron.job (jobname, schedule, command, nodeport, database)"
        " values ('flashsale sweep gone', '0 0 30 2 *', 'select 1', 5432, 'gone')",
        "job 'flashsale sweep gone' is of database gone, which does not exist"),
    "the job is of an earlier version": (
        "insert into cron.job (jobname, schedule, command, nodeport, database)"
        " values ('flashsale tidy OURS', '0 0 30 2 *', 'select 1', 5432, 'OURS')",
        "job 'flashsale tidy OURS' is of an earlier version"),
    "the job is scheduled twice": (
        "insert into cron.job (jobname, schedule, command, nodeport, database)"
        " values ('flashsale sweep OURS', '0 0 30 2 *', 'select 1', 5432, 'OURS')",
        f"job 'flashsale sweep OURS' is scheduled 2 times, by {JOB}, postgres"),
}  # fmt: skip


@needs_pg_cron
@pytest.mark.parametrize(("statement", "detail"), SITUATIONS.values(), ids=SITUATIONS)
def test_a_situation_is_found_and_its_remedy_ends_it(db, scheduled, cron, follow, statement, detail):
    statement, detail = (text.replace("OURS", scheduled) for text in (statement, detail))
    wait_until(lambda: not not_ok(pg_cron_checks.pg_cron(db)), "nothing is wrong")
    cron.execute(statement)
    try:
        findings = not_ok(pg_cron_checks.pg_cron(db))
        assert detail in [finding.detail for finding in findings]
        for finding in findings:
            follow(finding)
        stop_jobs(cron)
        # A launcher that a job has ended starts again after a second.
        wait_until(lambda: not not_ok(pg_cron_checks.pg_cron(db)), "nothing is left to say")
    finally:
        cron.execute("delete from cron.job where username = 'gone' or database = 'gone'")
        cron.execute(f"alter role {JOB} login; grant flashsale_ops to {JOB}")
        cron.execute(f"grant usage on schema cron to {JOB}")
        for name in ("postgres", scheduled):
            cron.execute(f"grant connect on database {name} to public")


@needs_pg_cron
def test_a_role_that_inherits_nothing_cannot_run_the_job(db, scheduled, cron, follow):
    if db.info.server_version < roles.FINE_GRAINED:
        cron.execute(f"alter role {JOB} noinherit")
    else:
        cron.execute(f"grant flashsale_ops to {JOB} with inherit false")
    (finding,) = not_ok(pg_cron_checks.pg_cron(db))
    assert finding.detail.endswith("which may not call flashsale.sweep()")
    follow(finding)
    assert not_ok(pg_cron_checks.pg_cron(db)) == []


@needs_pg_cron
def test_a_role_that_may_not_see_the_jobs_gets_the_grants_it_lacks(
    db, scheduled, cron, follow, cluster, monkeypatch
):
    """One after another: each is visible only with the one before."""
    db.execute("create role test_watcher login in role flashsale_ops")
    db.execute("revoke connect on database postgres from public")
    db.execute(pg_cron.SWEEP)
    said = []
    try:
        url = cluster.url("test_watcher", db.info.dbname)
        monkeypatch.setenv("FLASHSALE_DATABASE_URL", url)
        with psycopg.connect(url, autocommit=True) as conn:
            while findings := not_ok(pg_cron_checks.pg_cron(conn)):
                said += [finding.remedy for finding in findings]
                follow(findings[0])
        assert said == [
            "grant pg_read_all_settings to test_watcher",
            "grant connect on database postgres to test_watcher",
            "in database postgres: grant usage on schema cron to test_watcher",
        ]
    finally:
        db.execute("grant connect on database postgres to public")
        for conn in (db, cron):
            conn.execute("drop owned by test_watcher")
        db.execute("drop role test_watcher")


@needs_pg_cron
def test_a_database_of_pg_cron_that_accepts_no_connections_is_found_and_its_remedy_ends_it(
    db, scheduled, cron, follow
):
    db.execute("alter database postgres allow_connections false")
    try:
        (finding,) = not_ok(pg_cron_checks.pg_cron(db))
        assert finding.detail.startswith("pg_cron's database postgres cannot be reached: ")
        follow(finding)
        assert not_ok(pg_cron_checks.pg_cron(db)) == []
    finally:
        db.execute("alter database postgres allow_connections true")


ROLE_SITUATIONS = {
    "operators do not inherit": "alter role flashsale_ops noinherit",
    "the server's role does not inherit": "alter role flashsale_app noinherit",
}


@pytest.mark.parametrize("statement", ROLE_SITUATIONS.values(), ids=ROLE_SITUATIONS)
def test_a_role_that_does_not_inherit_is_found_and_its_remedy_ends_it(db, statement):
    if db.info.server_version >= roles.FINE_GRAINED:
        role, group = (
            ("flashsale_ops", "flashsale_api") if "ops" in statement else ("flashsale_app", "flashsale_api")
        )
        statement = f"grant {group} to {role} with inherit false"
    with db.transaction(force_rollback=True):
        for name, *_ in db.execute(role_checks._LOGINS).fetchall():
            if name != "flashsale_app":
                db.execute(f"alter role {name} nologin")
        db.execute(statement)
        (finding,) = not_ok(role_checks.roles(db))
        assert re.search("does not inherit", finding.detail)
        db.execute(finding.remedy)
        assert not_ok(role_checks.roles(db)) == []


def test_a_membership_that_another_role_has_granted_is_revoked(db):
    with db.transaction(force_rollback=True):
        db.execute("create role test_admin; grant flashsale_owner to test_admin with admin option")
        db.execute("set local role test_admin")
        db.execute("grant flashsale_owner to flashsale_api")
        db.execute("reset role")
        (finding,) = not_ok(role_checks.roles(db))
        assert finding.detail == "role flashsale_api is a member of flashsale_owner"
        db.execute(finding.remedy)
        assert not_ok(role_checks.roles(db)) == []


def test_a_member_of_the_owner_that_cannot_migrate_is_a_warning(db, cluster):
    db.execute("create role test_migrator login in role flashsale_owner")
    try:
        with psycopg.connect(cluster.url("test_migrator", db.info.dbname), autocommit=True) as conn:
            (finding,) = not_ok(role_checks.roles(conn))
            assert finding.status == "warning"
            assert finding.remedy == f"grant create on database {db.info.dbname} to test_migrator;"
            db.execute(finding.remedy)
            assert not_ok(role_checks.roles(conn)) == []
    finally:
        db.execute("drop owned by test_migrator")
        db.execute("drop role test_migrator")


def test_a_role_that_inherits_nothing_gets_the_grants_for_all_checks(flashsale, db, cluster, monkeypatch):
    db.execute("create role test_migrator login noinherit in role flashsale_owner")
    monkeypatch.setenv("FLASHSALE_DATABASE_URL", cluster.url("test_migrator", db.info.dbname))
    try:
        unchecked = [f for f in diagnosis.diagnose() if "not checked by role" in f.detail]
        assert "audit" in [finding.check for finding in unchecked]
        for remedy in {finding.remedy for finding in unchecked}:
            db.execute(remedy)
        assert not [f for f in diagnosis.diagnose() if "not checked by role" in f.detail]
    finally:
        db.execute("drop role test_migrator")
