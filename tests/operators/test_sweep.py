"""sweep(), the job of pg_cron: calls expire_due() until nothing is due, a transaction for each call."""

from contextlib import contextmanager
from datetime import timedelta

import psycopg
import pytest

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


BROKEN = """
    create or replace function flashsale.expire_due(p_limit int default 1000) returns int
    language plpgsql as $$
    begin
      if nextval('batches') > {} then {}; end if;
      return p_limit;
    end $$
"""


@contextmanager
def breaking_after(db, batches, how="raise 'the disk is full'"):
    """From now on expire_due() fails after so many calls."""
    (definition,) = db.execute(
        "select pg_get_functiondef('flashsale.expire_due(int)'::regprocedure)"
    ).fetchone()
    db.execute("create sequence batches")
    db.execute(BROKEN.format(batches, how))
    try:
        yield
    finally:
        db.execute(definition)
        db.execute("drop sequence batches")


def failure(db):
    return db.execute(
        "select failure, failed_at > now() - interval '1 minute' from flashsale_data.scheduler"
    ).fetchone()


@pytest.mark.parametrize(("batches", "is_recorded"), [(0, False), (1, True)])
def test_a_sweep_that_fails_records_that_and_a_long_one_records_each_batch(db, batches, is_recorded):
    """A sweep that runs for long must not be reported as dead, and one that fails must not be alive."""
    with breaking_after(db, batches), pytest.raises(psycopg.errors.RaiseException) as raised:
        db.execute("call flashsale.sweep()")
    assert raised.value.diag.message_primary == "the disk is full"
    assert "flashsale.expire_due(integer) line" in raised.value.diag.message_detail
    assert one(db, "select last_run_at is not null from flashsale_data.scheduler") == is_recorded
    assert failure(db) == ("P0001: the disk is full", True)
    db.execute("call flashsale.sweep()")
    assert failure(db) == (None, None)


def test_a_sweep_that_is_cancelled_records_that(db, connect):
    """As by statement_timeout, which a database or a role may have."""
    impatient = connect(options="-c statement_timeout=100")
    with (
        breaking_after(db, 0, "perform pg_sleep(60)"),
        pytest.raises(psycopg.errors.QueryCanceled, match="statement timeout"),
    ):
        impatient.execute("call flashsale.sweep()")
    assert failure(db) == ("57014: canceling statement due to statement timeout", True)


def test_sweep_runs_with_an_operators_rights(db):
    product = create_product(db)
    make_short(db)
    hold = place_hold(db, product)
    wait_until_lapsed(db)
    db.execute("set role flashsale_ops")
    db.execute("call flashsale.sweep()")
    db.execute("reset role")
    assert hold_status(db, hold) == "expired"
