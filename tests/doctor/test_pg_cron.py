"""`flashsale doctor`: the scheduler."""

from flashsale.database import pg_cron
from flashsale.doctor import pg_cron as pg_cron_checks
from tests.doctor.findings import only, problems
from tests.support.database import needs_pg_cron


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
def test_a_job_that_could_not_connect_fails_although_its_run_has_no_times(db, scheduled, cron):
    cron.execute(
        "insert into cron.job_run_details (jobid, runid, status, return_message)"
        " select jobid, nextval('cron.runid_seq'), status, message from cron.job,"
        " (values ('succeeded', '1 row'), ('failed', 'connection failed'), ('running', null))"
        " as run (status, message) where jobname = %s",
        (f"flashsale sweep {scheduled}",),
    )
    assert problems(pg_cron_checks.pg_cron, db) == [
        ("failed", f"job 'flashsale sweep {scheduled}' failed: connection failed")
    ]


@needs_pg_cron
def test_jobs_that_do_not_run_fail(db, scheduled):
    db.execute("update flashsale_data.scheduler set scheduled_at = now() - interval '4 minutes'")
    assert problems(pg_cron_checks.pg_cron, db) == [("failed", "no sweep has run")]
    db.execute("update flashsale_data.scheduler set last_run_at = now() - interval '4 minutes'")
    ((status, said),) = problems(pg_cron_checks.pg_cron, db)
    assert (status, "the last sweep was at" in said) == ("failed", True)


FAIL = "select flashsale.record_sweep('53100: the disk is full')"


@needs_pg_cron
def test_a_failed_sweep_fails_although_the_runs_of_another_role_are_hidden(db, scheduled):
    db.execute("call flashsale.sweep()")
    db.execute(FAIL)
    assert problems(pg_cron_checks.pg_cron, db) == [
        ("failed", "the last sweep failed: 53100: the disk is full")
    ]


def test_a_failed_sweep_of_another_scheduler_fails(db, monkeypatch):
    monkeypatch.setattr(pg_cron_checks, "cron_database", lambda conn: None)
    db.execute("call flashsale.sweep()")
    db.execute(FAIL)
    assert problems(pg_cron_checks.pg_cron, db) == [
        ("failed", "pg_cron is not loaded, and the last sweep failed: 53100: the disk is full")
    ]
    db.execute("call flashsale.sweep()")
    assert problems(pg_cron_checks.pg_cron, db) == []


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
