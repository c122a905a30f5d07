"""What tests of terms look at."""

from tests.support.sql_calls import rows, value


def clock(db):
    return value(db, "select clock_timestamp()")


def in_the_ledger(db, kind="terms_changed"):
    return [
        data
        for (data,) in rows(
            db, "select data from flashsale_data.events where kind = %s order by event_id", kind
        )
    ]
