"""What tests of expire_due() look at afterwards."""


def statuses(db):
    return dict(db.execute("select status, count(*) from flashsale_data.holds group by status").fetchall())


def marks(db):
    """How often each hold and order was recorded as lapsed, according to the ledger."""
    return [
        times
        for (times,) in db.execute(
            "select count(*) from flashsale_data.events where kind in ('hold_expired', 'order_cancelled')"
            " group by kind, hold_id, order_id"
        )
    ]
