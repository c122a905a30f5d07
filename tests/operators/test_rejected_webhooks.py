"""Rejected webhooks: record_rejected_webhooks(), the view, dismiss_rejected_webhooks(), and how they go."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from psycopg import errors

from tests.support.sale_steps import audit, create_product, one, order, pay, refused
from tests.support.waiting import wait_until_blocked

CODE, DETAIL = "invalid_request", "Invalid enum value 'succeeded' - at `$.status`."


def reject(conn, webhook_id, body=b"{}", code=CODE, detail=DETAIL, key=None, order_id=None, status=None):
    """Record one; returns its id, result and deliveries."""
    return conn.execute(
        "select webhook_id, result, deliveries from flashsale.record_rejected_webhook("
        "%s::text, %s::bytea, %s::text, %s::text, %s::text, %s::bigint, %s::text)",
        (webhook_id, body, code, detail, key, order_id, status),
    ).fetchone()


def apply(conn, webhook_id, key, order_id, status="success", payload="{}"):
    """The SQLSTATE of a webhook with this id."""
    return one(
        conn,
        "select sqlstate from flashsale.apply_payments(array[1], array[%s], array[%s]::bigint[], array[%s],"
        " array[%s]::jsonb[], array[%s])",
        key,
        order_id,
        status,
        payload,
        webhook_id,
    )


def standing(conn):
    return [
        webhook_id
        for (webhook_id,) in conn.execute(
            "select webhook_id from flashsale.rejected_webhooks order by first_seen_at, webhook_id"
        )
    ]


def counter(conn):
    return conn.execute("select kept, dropped from flashsale_data.rejection_counter").fetchone()


def figure(conn, name):
    return one(conn, "select value from flashsale.get_sale_metrics() where metric = %s", name)


def test_a_rejected_webhook_is_kept_as_it_came(db):
    body = b'{"order_id":"\xff\x00'
    assert reject(db, "msg_1", body, key="pay_1", order_id=7, status="success") == ("msg_1", "kept", 1)
    row = db.execute(
        "select body, body_text, body_size, code, detail, idempotency_key, order_id, status, deliveries,"
        " first_seen_at = last_seen_at from flashsale.rejected_webhooks"
    ).fetchone()
    assert row == (
        body, '{"order_id":"\\377\\000', len(body), CODE, DETAIL, "pay_1", 7, "success", 1, True,
    )  # fmt: skip
    assert figure(db, "rejected_webhooks") == 1


def test_one_that_comes_again_is_the_same_row(db):
    reject(db, "msg_1", b"first", "malformed_json", "No JSON.")
    assert reject(db, "msg_1", b"second") == ("msg_1", "kept", 2)
    assert db.execute(
        "select body, code, deliveries, first_seen_at < last_seen_at from flashsale.rejected_webhooks"
    ).fetchall() == [(b"second", CODE, 2, True)]
    assert counter(db) == (1, 0)


def test_only_the_beginning_of_a_large_body_is_kept(db):
    reject(db, "msg_1", b"x" * 300_000)
    assert db.execute("select octet_length(body), body_size from flashsale.rejected_webhooks").fetchone() == (
        262_144,
        300_000,
    )


def test_a_batch_has_a_row_for_each_request(db):
    db.execute("select flashsale.change_settings(p_rejected_limit => 2)")
    rows = db.execute(
        "select request_no, sqlstate, webhook_id, result, deliveries from flashsale.record_rejected_webhooks("
        "array[5, 6, 7, 8, 9, 10], array['b', 'a', 'b', 'c', null, 'd'],"
        " array_fill(''::bytea, array[6]), array_fill('x'::text, array[6]), array_fill('x'::text, array[6]),"
        " p_statuses => array[null, null, null, null, null, 'failed'])"
    ).fetchall()
    assert rows == [
        (5, None, "b", "kept", 2),
        (6, None, "a", "kept", 1),
        (7, None, "b", "kept", 2),
        (8, None, "c", "dropped", None),
        (9, "SA009", None, None, None),
        (10, None, None, "ignored", None),
    ]
    assert counter(db) == (2, 1)


@pytest.mark.parametrize("status", ["failed", "cancelled", "declined"])
def test_one_that_is_known_to_have_captured_nothing_is_not_kept(db, status):
    assert reject(db, "msg_1", status=status) == (None, "ignored", None)
    assert standing(db) == []


@pytest.mark.parametrize(
    "values",
    [
        {"webhook_id": None},
        {"webhook_id": ""},
        {"webhook_id": "m", "body": None},
        {"webhook_id": "m", "code": None},
        {"webhook_id": "m", "code": ""},
        {"webhook_id": "m", "detail": None},
        {"webhook_id": "m", "detail": ""},
    ],
)
def test_what_is_missing_is_named(db, values):
    with refused("SA009"):
        reject(db, **values)
    assert standing(db) == []


def test_without_a_webhook_id_the_key_identifies_it(db):
    assert reject(db, None, key="pay_1")[:2] == ("key:pay_1", "kept")


def test_long_ids_are_kept_apart_and_go_like_others(db):
    product = create_product(db)
    long = "m" * 10_000
    kept = [reject(db, long + end)[0] for end in ("a", "b")]
    assert len(set(kept)) == 2
    assert {len(webhook_id) for webhook_id in kept} == {255}
    assert apply(db, long + "a", "k", order(db, product)) is None
    assert standing(db) == kept[1:]


def test_past_the_limit_deliveries_are_counted(db):
    db.execute("select flashsale.change_settings(p_rejected_limit => 1)")
    assert reject(db, "msg_1")[1] == "kept"
    assert reject(db, "msg_2") == ("msg_2", "dropped", None)
    assert reject(db, "msg_2")[1] == "dropped"
    assert reject(db, "msg_1") == ("msg_1", "kept", 2)
    assert standing(db) == ["msg_1"]
    assert (counter(db), figure(db, "rejected_webhooks_dropped")) == ((1, 2), 2)
    one(db, "select flashsale.dismiss_rejected_webhooks(array['msg_1'])")
    assert reject(db, "msg_2")[1] == "kept"


def test_the_limit_is_exact_when_two_are_rejected_at_once(db, connect):
    db.execute("select flashsale.change_settings(p_rejected_limit => 1)")
    first, second = connect(autocommit=False), connect()
    assert reject(first, "msg_1")[1] == "kept"
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(reject, second, "msg_2")
        wait_until_blocked(second, watcher=db)
        first.commit()
        assert waiting.result()[1] == "dropped"
    assert standing(db) == ["msg_1"]


def test_above_read_committed_a_webhook_that_was_kept_since_is_an_error(db, connect):
    db.execute("select flashsale.change_settings(p_rejected_limit => 1)")
    old = connect(autocommit=False)
    old.execute("set transaction isolation level repeatable read")
    one(old, "select count(*) from flashsale_data.rejected_webhooks")
    reject(db, "msg_1")
    with pytest.raises(errors.SerializationFailure):
        reject(old, "msg_2")


def test_it_goes_when_the_same_id_is_understood(db):
    product = create_product(db)
    number = order(db, product)
    reject(db, "msg_1")
    reject(db, "msg_2")
    assert apply(db, "msg_1", "pay_1", number) is None
    assert standing(db) == ["msg_2"]
    # So is a replay, and one that waits for its order.
    assert apply(db, "msg_2", "pay_1", number) is None
    reject(db, "msg_3")
    assert apply(db, "msg_3", "early", 4711) is None
    assert standing(db) == []
    assert audit(db) == []


def test_it_stays_while_the_same_id_is_refused(db):
    product = create_product(db)
    number = order(db, product)
    pay(db, number, "failed", "pay_1")
    reject(db, "msg_1")
    assert apply(db, "msg_1", "pay_1", number) == "SA008"
    assert apply(db, "msg_1", "pay_1", number, "failed", '{"amount": "?"}') == "SA009"
    assert standing(db) == ["msg_1"]


def test_it_stays_while_what_is_served_under_its_id_contradicts_it(db):
    """The provider reported a success, and what is served now is a failure, or of another order."""
    product = create_product(db)
    number = order(db, product)
    reject(db, "msg_1", order_id=number, status="success")
    reject(db, "msg_2", order_id=number + 1000)
    assert apply(db, "msg_1", "pay_1", number, "failed") is None
    assert apply(db, "msg_2", "pay_2", number) is None
    assert standing(db) == ["msg_1", "msg_2"]


def test_without_a_webhook_id_it_goes_when_its_key_is_served_unless_the_key_was_used(db):
    product = create_product(db)
    number = order(db, product)
    reject(db, None, key="pay_1", order_id=number, status="success")
    assert apply(db, None, "pay_1", number) is None
    assert standing(db) == []
    reject(db, None, code="idempotency_key_reused", key="pay_1", order_id=number, status="success")
    assert apply(db, None, "pay_1", number) is None
    assert standing(db) == ["key:pay_1"]


def test_it_goes_with_the_transaction_that_applies_it_or_not_at_all(db, connect):
    number = order(db, create_product(db))
    reject(db, "msg_1")
    caller = connect(autocommit=False)
    assert apply(caller, "msg_1", "pay_1", number) is None
    assert standing(caller) == []
    caller.rollback()
    assert standing(db) == ["msg_1"]


def test_a_payment_does_not_wait_for_a_webhook_that_is_being_rejected(db, connect):
    number = order(db, create_product(db))
    reject(db, "msg_1")
    rejecting = connect(autocommit=False)
    reject(rejecting, "msg_1")
    assert apply(db, "msg_1", "pay_1", number) is None
    rejecting.commit()
    assert standing(db) == ["msg_1"]
    assert apply(db, "msg_1", "pay_1", number) is None
    assert standing(db) == []


def test_a_webhook_that_is_rejected_while_its_row_goes_is_kept(db, connect):
    number = order(db, create_product(db))
    reject(db, "msg_1")
    applying, rejecting = connect(autocommit=False), connect()
    assert apply(applying, "msg_1", "pay_1", number) is None
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(reject, rejecting, "msg_1")
        wait_until_blocked(rejecting, watcher=db)
        applying.commit()
        assert waiting.result() == ("msg_1", "kept", 1)
    assert standing(db) == ["msg_1"]


def test_a_dismissed_one_leaves_the_view_until_something_else_comes_under_its_id(db):
    reject(db, "msg_1", b"body")
    assert one(db, "select flashsale.dismiss_rejected_webhooks(array['msg_1', 'unknown'])") == 1
    assert one(db, "select flashsale.dismiss_rejected_webhooks(array['msg_1'])") == 0
    assert (standing(db), figure(db, "rejected_webhooks")) == ([], 0)
    reject(db, "msg_1", b"body")
    assert standing(db) == []
    reject(db, "msg_1", b"other")
    assert standing(db) == ["msg_1"]


def test_a_purge_deletes_what_was_dismissed_and_nothing_that_stands(db):
    reject(db, "stands")
    reject(db, "dealt with")
    one(db, "select flashsale.dismiss_rejected_webhooks(array['dealt with'])")
    purged = "select rows from flashsale.purge(%s) where removed = 'rejected_webhooks'"
    assert one(db, purged, "1 day") == 0
    assert one(db, purged, "0") == 1
    assert one(db, "select array_agg(webhook_id) from flashsale_data.rejected_webhooks") == ["stands"]


def test_a_success_whose_key_was_used_is_among_the_payments_of_its_order(db):
    number = order(db, create_product(db))
    pay(db, number, "failed", "pay_1")
    reject(db, "msg_1", code="idempotency_key_reused", key="pay_1", order_id=number, status="success")
    found = "select status, result from flashsale.payments where order_id = %s order by received_at"
    assert db.execute(found, (number,)).fetchall() == [("failed", "applied"), ("success", "rejected")]
    one(db, "select flashsale.dismiss_rejected_webhooks(array['msg_1'])")
    assert db.execute(found, (number,)).fetchall() == [("failed", "applied")]
