"""`flashsale cron status`."""

import json

import pytest

from tests.support.database import needs_pg_cron
from tests.support.sale_steps import create_product, make_short, place_hold, wait_until_lapsed


@pytest.fixture
def jobs(db, scheduled, cron) -> None:
    """The sweep has failed once and succeeded once."""
    db.execute("call flashsale.sweep()")
    cron.execute(
        "insert into cron.job_run_details (jobid, status, return_message, start_time, end_time)"
        " select jobid, state, 'CALL', now() - interval '1 minute', now() - interval '59.9 seconds'"
        " from cron.job, unnest(array['failed', 'succeeded']) state where jobname = %s",
        (f"flashsale sweep {scheduled}",),
    )


@needs_pg_cron
def test_it_shows_jobs_with_their_last_runs_and_the_lag(flashsale, db, jobs):
    result = flashsale("cron", "status")
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert lines[0].startswith("alive: Scheduled ")
    assert lines[1] == "no lag"
    sweep = next(line for line in lines if line.startswith(f"flashsale sweep {db.info.dbname}"))
    assert "0.10 s  succeeded" in sweep
    assert sweep.split()[-2:] == ["1", "CALL"]
    assert any(line.startswith("flashsale forget runs") for line in lines)


@needs_pg_cron
def test_durations_are_seconds_in_json(flashsale, db, jobs):
    status = json.loads(flashsale("cron", "status", "--json").stdout)
    assert (status["scheduler"], status["lag"]) == ("alive", 0)
    sweep, purge = status["jobs"]
    assert (sweep["status"], sweep["failures"], sweep["took"], sweep["active"]) == ("succeeded", 1, 0.1, True)
    assert purge["last_run_at"] is None


@needs_pg_cron
def test_a_dead_scheduler_exits_with_1_and_shows_the_lag(flashsale, db, jobs):
    make_short(db)
    place_hold(db, create_product(db))
    wait_until_lapsed(db)
    db.execute(
        "update flashsale_data.scheduler set scheduled_at = null, last_run_at = now() - interval '1 hour'"
    )
    result = flashsale("cron", "status")
    assert result.exit_code == 1
    assert result.stdout.startswith("dead: ")
    assert " behind" in result.stdout


@needs_pg_cron
def test_a_run_that_failed_is_not_alive(flashsale, db, jobs, scheduled, cron):
    """Nor while the next one runs."""
    for status in ("failed", "running"):
        cron.execute(
            "insert into cron.job_run_details (jobid, runid, status, return_message)"
            " select jobid, nextval('cron.runid_seq'), %s, E'permission\ndenied' from cron.job"
            " where jobname = %s",
            (status, f"flashsale sweep {scheduled}"),
        )
        result = flashsale("cron", "status")
        assert result.exit_code == 1
        assert result.stdout.startswith("failing: The last run failed: permission denied\n")
        assert json.loads(flashsale("cron", "status", "--json").stdout)["scheduler"] == "failing"


@needs_pg_cron
def test_an_operator_sees_whether_the_sweep_runs(flashsale, db, jobs, cluster, cron):
    db.execute("create role test_operator login in role flashsale_ops")
    url = cluster.url("test_operator", db.info.dbname)
    note = "pg_cron shows its jobs to the role that has scheduled them, not to test_operator"
    try:
        for right in (
            "select",
            "grant pg_monitor to test_operator",
            "grant usage on schema cron to test_operator",
        ):
            cron.execute(right)
            result = flashsale("cron", "status", FLASHSALE_DATABASE_URL=url)
            assert result.exit_code == 0, right
            assert result.stdout.startswith("alive: Scheduled ")
            assert result.stdout.splitlines()[1:] == ["no lag", note]
        shown = flashsale("cron", "status", "--json", FLASHSALE_DATABASE_URL=url).stdout
        assert json.loads(shown)["jobs"] is None
        db.execute("select flashsale.record_sweep('53100: the disk is full')")
        result = flashsale("cron", "status", FLASHSALE_DATABASE_URL=url)
        assert (result.exit_code, "failed: 53100: the disk is full\n" in result.stdout) == (1, True)
        assert result.stdout.startswith("failing: Scheduled ")
        db.execute("update flashsale_data.scheduler set scheduled_at = null, last_run_at = '2020-01-01'")
        assert flashsale("cron", "status", FLASHSALE_DATABASE_URL=url).exit_code == 1
    finally:
        for conn in (db, cron):
            conn.execute("drop owned by test_operator")
        db.execute("drop role test_operator")


def test_without_jobs_it_exits_with_1(flashsale):
    result = flashsale("cron", "status", "--json")
    assert result.exit_code == 1
    status = json.loads(result.stdout)
    assert (status["scheduler"] in ("not_scheduled", "not_installed"), status["jobs"]) == (True, [])
