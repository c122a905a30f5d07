"""The view scheduler: whether the sweep runs, and since when the oldest lapsed row has waited."""

from datetime import timedelta

import pytest

from tests.support.database import needs_pg_cron
from tests.support.sale_steps import create_product, order, place_hold, wait_until_lapsed


def row(db):
    return db.execute(
        "select schedule, last_run_at is null, due_since is null, lag from flashsale.scheduler"
    ).fetchone()


def test_without_lapsed_rows_there_is_no_lag(db):
    place_hold(db, create_product(db))
    assert row(db) == (None, True, True, timedelta(0))


def test_lapsed_rows_lag_until_they_are_swept(db):
    product = create_product(db)
    db.execute("select flashsale.change_settings('1 second', '1 second')")
    place_hold(db, product)
    order(db, product)
    wait_until_lapsed(db)
    _, never, nothing, lag = row(db)
    assert (never, nothing, lag > timedelta(0)) == (True, False, True)
    db.execute("call flashsale.sweep()")
    assert row(db)[1:] == (False, True, timedelta(0))


def test_holds_used_in_time_do_not_lag(db):
    db.execute("select flashsale.change_settings('1 second')")
    db.execute("select flashsale.release_hold(%s)", (place_hold(db, create_product(db)),))
    wait_until_lapsed(db)
    assert row(db)[2:] == (True, timedelta(0))


SCHEDULES = {"5 seconds": 5, "* * * * *": 60}
"""with their period in seconds"""
# Scheduled, last succeeded and failed since so many periods ago.
SITUATIONS = {
    "never ran, just scheduled": (1.5, None, None, "alive", "last run at no time yet."),
    "never ran in two periods": (2.1, None, None, "dead", "and no run has succeeded yet."),
    "runs": (1000, 1.5, None, "alive", "last run at"),
    "does not run for two periods": (1000, 2.1, None, "dead", "and no run has succeeded since"),
    "has stopped, and was scheduled again": (1.5, 1000, None, "alive", "last run at"),
    "its last run failed": (1000, 1, 0, "failing", "failed: 53100: the disk is full"),
    "its first run failed": (1, None, 0, "failing", "failed: 53100: the disk is full"),
    "has failed, and was scheduled again": (1.5, 1000, 1.6, "alive", "last run at"),
}


@needs_pg_cron
@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("situation", SITUATIONS)
def test_a_scheduler_is_alive_while_sweeps_succeed_every_two_periods_and_none_fails(db, schedule, situation):
    scheduled, last_run, failed, status, detail = SITUATIONS[situation]
    db.execute(
        "update flashsale_data.scheduler set schedule = %(schedule)s,"
        " scheduled_at = now() - %(scheduled)s::float8 * %(period)s * interval '1 second',"
        " last_run_at = now() - %(last_run)s::float8 * %(period)s * interval '1 second',"
        " failed_at = now() - %(failed)s::float8 * %(period)s * interval '1 second',"
        " failure = case when %(failed)s::float8 is not null then '53100: the disk is full' end",
        {
            "schedule": schedule,
            "period": SCHEDULES[schedule],
            "scheduled": scheduled,
            "last_run": last_run,
            "failed": failed,
        },
    )
    db.execute("set role flashsale_ops")
    try:
        found = db.execute("select schedule, status, detail from flashsale.scheduler").fetchone()
    finally:
        db.execute("reset role")
    assert found[:2] == (schedule, status)
    assert found[2].startswith(f"Scheduled {schedule}, ")
    assert detail in found[2]
    assert db.execute(
        "select r.scheduler, m.value from flashsale.readiness() r, flashsale.get_sale_metrics() m"
        " where m.metric = 'scheduler_alive'"
    ).fetchone() == (status, status == "alive")
