"""The view scheduler: when the sweep last ran, and since when the oldest lapsed row has waited."""

from datetime import timedelta

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
