"""get_sale_metrics(): equal to the views, and bounded."""

from tests.support.sale_steps import create_product, one, order, pay, place_hold


def sale_metrics(conn, product=None):
    query = "select metric, value from flashsale.get_sale_metrics() where product_id is not distinct from %s"
    return dict(conn.execute(query, (product,)).fetchall())


def test_units_are_those_of_the_view_and_add_up(db):
    product = create_product(db)
    place_hold(db, product)
    pay(db, order(db, product), "success")
    order(db, product)
    row = db.execute(
        "select total_stock, available_stock, held, awaiting, paid from flashsale.stock"
    ).fetchone()
    found = sale_metrics(db, product)
    assert found.pop("on_sale") == 1
    assert found == dict(zip(("total_stock", "available", "held", "awaiting", "paid"), row, strict=True))
    assert found.pop("total_stock") == sum(found.values())
    assert min(found["held"], found["awaiting"], found["paid"]) > 0, "the test tells them apart"


def test_the_window_is_in_unix_time_and_absent_without_one(db):
    product = create_product(db)
    assert not {"starts_at", "ends_at"} & sale_metrics(db, product).keys()
    db.execute(
        "select flashsale.change_terms(array[%s::bigint], '2126-01-12 10:00:00.5+00', '2126-01-12 11:00+00')",
        (product,),
    )
    found = sale_metrics(db, product)
    assert (found["on_sale"], found["starts_at"], found["ends_at"]) == (0, 4923885600.5, 4923889200)


def test_a_paused_sale_is_not_open(db):
    product = create_product(db)
    db.execute("select flashsale.pause_sale(array[%s::bigint])", (product,))
    assert sale_metrics(db, product)["on_sale"] == 0


def test_units_are_those_of_the_100_newest_products(db):
    products = [create_product(db) for _ in range(103)]
    found = [
        row[0]
        for row in db.execute(
            "select product_id from flashsale.get_sale_metrics() where metric = 'available' order by 1"
        )
    ]
    assert found == products[3:]


def test_lag_is_that_of_the_oldest_instant_until_it_is_swept(db):
    product = create_product(db)
    assert sale_metrics(db)["sweep_lag"] == 0
    db.execute("select flashsale.change_settings(p_hold_time => '100 milliseconds')")
    hold = place_hold(db, product)
    (expires_at,) = db.execute("select expires_at from flashsale.get_hold(%s)", (hold,)).fetchone()
    db.execute("select pg_sleep_until(%s)", (expires_at,))
    with db.transaction():
        before = one(db, "select extract(epoch from lag)::float8 from flashsale.scheduler")
        lag = sale_metrics(db)["sweep_lag"]
    assert 0 < before <= lag < before + 60
    db.execute("select flashsale.expire_due()")
    assert sale_metrics(db)["sweep_lag"] == 0


def test_the_scheduler_has_no_lag_until_it_is_scheduled_and_none_just_after_a_run(db):
    assert "scheduler_lag" not in sale_metrics(db)
    assert sale_metrics(db)["scheduler_alive"] == 0
    db.execute("call flashsale.sweep()")
    assert 0 <= sale_metrics(db)["scheduler_lag"] < 60


def test_refunds_inbox_and_ledger(db):
    assert sale_metrics(db)["ledger_events"] == 0
    assert (sale_metrics(db)["rejected_webhooks"], sale_metrics(db)["rejected_webhooks_dropped"]) == (0, 0)
    made = order(db, create_product(db))
    for key, number in (("a", made), ("b", made), ("c", 10**6)):
        db.execute("select * from flashsale.apply_payment(%s, %s, 'success')", (key, number))
    found = sale_metrics(db)
    assert found["refunds_due"] == one(db, "select count(*) from flashsale.refunds_due") == 1
    assert (found["inbox"], found["inbox_limit"]) == (1, 10_000)
    assert found["ledger_events"] == one(db, "select count(*) from flashsale_data.events")


def test_refunds_are_counted_up_to_a_bound(db):
    db.execute(
        "insert into flashsale_data.payments"
        " (idempotency_key, order_id, status, payload, received_at, result, refund_state, refund_reason)"
        " select 'k' || i, i, 'success', '{}', now(), 'refund_due', 'due', 'order_unknown'"
        " from generate_series(1, 10001) i"
    )
    assert sale_metrics(db)["refunds_due"] == 10_000
