"""sweep(), the job of pg_cron: calls expire_due() until nothing is due, a transaction for each call."""

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

from tests.support.sale_steps import (
    audit,
    create_product,
    hold_status,
    make_short,
    one,
    place_hold,
    place_many,
    wait_until_lapsed,
)
from tests.support.waiting import wait_until


def test_sweep_records_all_and_commits_between_calls(db, connect):
    product = create_product(db, stock=2500)
    make_short(db)
    for size in (1000, 1000, 500):
        place_many(db, product, size)
    wait_until_lapsed(db)
    connect().execute("call flashsale.sweep()")
    transactions = "select count(*), status from flashsale_data.holds group by status, xmin::text order by 1"
    assert db.execute(transactions).fetchall() == [(500, "expired"), (1000, "expired"), (1000, "expired")]
    assert audit(db) == []


def test_sweep_records_its_run_without_lapsed_rows(db):
    assert one(db, "select last_run_at from flashsale_data.scheduler") is None
    db.execute("call flashsale.sweep()")
    assert one(db, "select clock_timestamp() - last_run_at from flashsale_data.scheduler") < timedelta(
        seconds=10
    )


def test_sweep_records_its_run_before_it_has_finished(db, connect):
    """A sweep that runs for long must not be reported as dead."""
    holder, sweeper = connect(autocommit=False), connect()
    holder.execute("lock table flashsale_data.lapses")
    with ThreadPoolExecutor(1) as pool:
        swept = pool.submit(sweeper.execute, "call flashsale.sweep()")
        wait_until(
            lambda: one(db, "select last_run_at is not null from flashsale_data.scheduler"),
            "sweep() shows itself",
        )
        assert not swept.done()
        holder.rollback()
        swept.result()


def test_sweep_runs_with_an_operators_rights(db):
    product = create_product(db)
    make_short(db)
    hold = place_hold(db, product)
    wait_until_lapsed(db)
    db.execute("set role flashsale_ops")
    db.execute("call flashsale.sweep()")
    db.execute("reset role")
    assert hold_status(db, hold) == "expired"
