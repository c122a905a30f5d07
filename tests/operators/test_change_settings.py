"""change_settings(): changes the settings that all callers share."""

from datetime import timedelta

import pytest

from tests.support.sale_steps import audit, create_product, one, order, order_status, pay, place_hold, refused
from tests.support.waiting import wait_until

DEFAULTS = (
    timedelta(minutes=2),
    timedelta(minutes=15),
    10000,
    timedelta(hours=24),
    1000,
    timedelta(minutes=1),
    1,
)
NAMES = (
    "hold_time",
    "payment_window",
    "inbox_limit",
    "inbox_keep",
    "rejected_limit",
    "extension_time",
    "max_extensions",
)


def settings(db):
    return db.execute(f"select {', '.join(NAMES)} from flashsale.settings").fetchone()


def change(db, **values):
    named = ", ".join(f"p_{name} => %({name})s" for name in values)
    return db.execute(f"select * from flashsale.change_settings({named})", values).fetchone()


def test_a_fresh_database_has_the_contracts_times(db):
    assert settings(db) == DEFAULTS


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("hold_time", timedelta(seconds=30)),
        ("payment_window", timedelta(hours=1)),
        ("inbox_limit", 5),
        ("inbox_keep", timedelta(hours=1)),
        ("rejected_limit", 5),
        ("extension_time", timedelta(seconds=30)),
        ("max_extensions", 3),
    ],
)
def test_one_setting_changes_and_the_others_stay(db, name, value):
    expected = tuple(
        value if other == name else default for other, default in zip(NAMES, DEFAULTS, strict=True)
    )
    assert change(db, **{name: value}) == expected
    assert settings(db) == expected


def test_a_call_without_arguments_changes_nothing(db):
    assert db.execute("select * from flashsale.change_settings()").fetchone() == DEFAULTS
    assert change(db, **dict.fromkeys(NAMES)) == DEFAULTS
    assert settings(db) == DEFAULTS


@pytest.mark.parametrize(
    ("name", "least", "most", "too_little", "too_much"),
    [
        ("hold_time", "100 milliseconds", "1 day", "99.999 milliseconds", "1 day 1 microsecond"),
        ("payment_window", "100 milliseconds", "30 days", "99.999 milliseconds", "30 days 1 microsecond"),
        ("inbox_limit", 0, 1_000_000, -1, 1_000_001),
        ("inbox_keep", "1 second", "30 days", "0.999999 seconds", "30 days 1 microsecond"),
        ("rejected_limit", 0, 100_000, -1, 100_001),
        ("extension_time", "100 milliseconds", "1 day", "99.999 milliseconds", "1 day 1 microsecond"),
        ("max_extensions", 0, 1000, -1, 1001),
    ],
)
def test_a_setting_has_bounds(db, name, least, most, too_little, too_much):
    for bound in (least, most):
        change(db, **{name: bound})
    before = settings(db)
    for beyond in (too_little, too_much):
        with refused("SA009"):
            change(db, **{name: beyond})
    assert settings(db) == before


@pytest.mark.parametrize("name", ["hold_time", "payment_window", "inbox_keep"])
@pytest.mark.parametrize("value", ["0", "-1 second", "178000000 years", "-178000000 years", "1 month"])
def test_an_interval_out_of_range_is_refused(db, name, value):
    if value == "1 month":  # of 30 days, as PostgreSQL compares it: just within the longer ones
        if name == "hold_time":
            with refused("SA009"):
                change(db, hold_time=value)
        else:
            change(db, **{name: value})
        return
    with refused("SA009"):
        change(db, **{name: value})


def test_one_invalid_setting_changes_none(db):
    with refused("SA009"):
        change(db, hold_time="1 minute", inbox_limit=-1)
    assert settings(db) == DEFAULTS


@pytest.mark.parametrize("name", ["hold_time", "payment_window", "inbox_keep"])
def test_a_time_is_the_same_on_every_date_and_in_every_time_zone(db, name):
    """A day is 23 hours long where summer time begins: one less 23:58 would be a time in the past."""
    change(db, **{name: "1 day -23:58:00"})
    assert one(db, f"select {name}::text from flashsale.settings") == "00:02:00"


@pytest.mark.parametrize("name", ["hold_time", "payment_window", "inbox_keep"])
def test_an_interval_of_months_that_leads_into_the_past_is_refused(db, name):
    """As PostgreSQL compares intervals this is 2 minutes; added to a date, it leads 5 days back."""
    with refused("SA009"):
        change(db, **{name: "-12 months 360 days 2 minutes"})


def test_a_changed_time_applies_to_new_holds_and_orders_only(db):
    product = create_product(db)
    old_hold, old_order = place_hold(db, product), order(db, product)
    change(db, hold_time="1 hour", payment_window="2 hours")
    new_hold, new_order = place_hold(db, product), order(db, product)
    lasts = "select expires_at - clock_timestamp() from flashsale.get_hold(%s)"
    assert one(db, lasts, old_hold) < timedelta(minutes=3)
    assert timedelta(minutes=59) < one(db, lasts, new_hold) < timedelta(minutes=61)
    due = "select payment_due_at - clock_timestamp() from flashsale.get_order(%s)"
    assert one(db, due, old_order) < timedelta(minutes=16)
    assert timedelta(minutes=119) < one(db, due, new_order) < timedelta(minutes=121)


def test_the_inbox_takes_no_more_than_its_limit(db):
    change(db, inbox_limit=1)
    assert pay(db, 1001) == "stored"
    with refused("SA011"):
        pay(db, 1002)
    change(db, inbox_limit=2)
    assert pay(db, 1002) == "stored"


def test_a_longer_inbox_keep_does_not_resume_an_ended_wait(db):
    """Its wait had ended when its order was created; a longer inbox_keep must not resume it."""
    product = create_product(db)
    coming = order(db, product) + 1
    assert pay(db, coming, key="stored") == "stored"
    change(db, inbox_keep="1 second")
    waited = "select clock_timestamp() >= wait_ends_at from flashsale.payments"
    wait_until(lambda: one(db, waited), "the webhook has waited too long")
    assert order(db, product) == coming
    assert order_status(db, coming) == ("pending_payment", None)
    change(db, inbox_keep="24 hours")
    assert audit(db) == []
    assert one(db, "select result from flashsale.payments") == "refund_due"
