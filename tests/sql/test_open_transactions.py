"""What a transaction that stays open must not change afterwards: decisions by the clock that it straddles,
and decisions that another transaction makes before it waits.

Each has its control: with the guard taken out of the SQL, the failure appears.
"""

from collections.abc import Callable
from concurrent.futures import Future
from types import SimpleNamespace

import psycopg
import pytest
from psycopg import IsolationLevel

from tests.support.sql_calls import (
    apply_payment,
    apply_payments,
    audit,
    available,
    change_settings,
    create_order,
    create_product,
    get_order,
    next_order_id,
    order_units,
    outcome,
    place_hold,
    rows,
    sqlstates,
    value,
    wait_until_blocked_or_done,
    wait_until_past,
)

pytestmark = pytest.mark.slow


Connection = psycopg.Connection


Meanwhile = Callable[..., Future]


def store(db: Connection, key: str, word: str = "success") -> SimpleNamespace:
    """A webhook for the next order, which waits for it one second."""
    change_settings(db, inbox_keep="1 second")
    order_id = next_order_id(db)
    assert apply_payment(db, key, order_id, word).result == "stored"
    until = value(db, "select wait_ends_at from flashsale.payments where idempotency_key = %s", key)
    return SimpleNamespace(key=key, order_id=order_id, until=until)


def refunds_due(db: Connection) -> list[str]:
    found = rows(db, "select idempotency_key from flashsale.refunds_due order by 1")
    return [refund.idempotency_key for refund in found]


# --- the key of a webhook whose wait ends while an open transaction applies it ---


def reuse_the_key_of_a_webhook_that_is_being_applied(
    db: Connection, first: Connection, second: Connection, meanwhile: Meanwhile
):
    """A stored `failed` is applied by a transaction that stays open until its wait has ended; then its key
    comes with the `success` of another order."""
    product = create_product(db)
    other, hold = order_units(db, product), place_hold(db, product)
    stored = store(db, "k", "failed")
    assert create_order(first, hold.hold_id).order_id == stored.order_id
    wait_until_past(db, stored.until)
    answer = meanwhile(outcome, apply_payment, second, "k", other.order_id, "success")
    wait_until_blocked_or_done(db, second, answer)
    first.commit()
    return getattr(answer.result(), "result", answer.result()), get_order(db, other.order_id).status


def test_a_key_is_taken_while_its_webhook_may_be_applied(db, first, second, meanwhile):
    told = reuse_the_key_of_a_webhook_that_is_being_applied(db, first, second, meanwhile)
    assert told == ("SA008", "pending_payment")


KEY_IS_FREE = ("key-still-taken", "select array_agg(request.to_apply),")


def test_a_key_is_taken_while_its_webhook_may_be_applied_control(db, first, second, meanwhile, without):
    """The last guard: a call fails that has not recorded what it answers."""
    without(*KEY_IS_FREE)
    told = reuse_the_key_of_a_webhook_that_is_being_applied(db, first, second, meanwhile)
    assert told == ("XX000", "pending_payment")
    assert audit(db) == []


def test_a_call_fails_that_has_not_recorded_what_it_answers_control(db, first, second, meanwhile, without):
    without(*KEY_IS_FREE)
    without("unwritten-rows", "return;\n{line}")
    told = reuse_the_key_of_a_webhook_that_is_being_applied(db, first, second, meanwhile)
    assert told == ("applied", "paid")
    assert audit(db) == ["money_adds_up", "paid_by_one_payment"]


def test_a_hold_that_is_not_recorded_is_an_error(db, product, first, second, blocked, without):
    """Without the lock on the key, two requests find it unused."""
    without("key-lock", "")
    place_hold(first, product, 1, "k")
    hold = blocked(place_hold, second, product, 1, "k")
    first.commit()
    # It has waited for the product's lock, and cannot insert the key again.
    assert hold.result().replayed
    other = create_product(db)
    place_hold(first, product, 1, "j")
    hold = blocked(place_hold, second, other, 1, "j")
    first.commit()
    assert hold.result() == "23505"
    assert available(db, other) == 10


# --- a refund that is reported while an open transaction may apply its webhook ---


def ask_for_refunds_while_the_webhook_is_being_applied(db: Connection, first: Connection):
    hold = place_hold(db, create_product(db))
    stored = store(db, "k")
    assert create_order(first, hold.hold_id).status == "paid"
    wait_until_past(db, stored.until)
    told = refunds_due(db), apply_payment(db, "k", stored.order_id).result
    first.commit()
    return told, (refunds_due(db), apply_payment(db, "k", stored.order_id).result)


def test_a_refund_is_reported_only_when_it_is_certain(db, first):
    told, later = ask_for_refunds_while_the_webhook_is_being_applied(db, first)
    assert told == ([], "stored")
    assert later == ([], "applied")


def test_a_refund_is_reported_only_when_it_is_certain_control(db, first, without):
    without("refund-certain", "else coalesce(v_now, max(v_now)) end")
    told, later = ask_for_refunds_while_the_webhook_is_being_applied(db, first)
    assert (told[0], later[0]) == (["k"], [])


def ask_for_refunds_while_the_webhook_is_passed_over(db: Connection, first: Connection):
    hold = place_hold(db, create_product(db))
    stored = store(db, "k")
    wait_until_past(db, stored.until)
    apply_payment(db, "waits", stored.order_id, "cancelled")
    told = [refunds_due(db)]
    assert create_order(first, hold.hold_id).status == "cancelled"
    told.append(refunds_due(db))
    first.commit()
    return [*told, refunds_due(db)]


def test_a_refund_that_was_reported_stays_due(db, first):
    assert ask_for_refunds_while_the_webhook_is_passed_over(db, first) == [["k"], ["k"], ["k"]]
    assert value(db, "select stored from flashsale_data.inbox") == 0


def test_a_refund_that_was_reported_stays_due_control(db, first, without):
    """The order may still apply another webhook, and says from when on."""
    earlier = "hashtext('flashsale.stored_webhooks'), ((v_tenth - 36000) % 2147483648)::int);"
    without("stored-webhooks-announced", earlier)
    assert ask_for_refunds_while_the_webhook_is_passed_over(db, first) == [["k"], [], ["k"]]


def test_a_refund_stays_due_when_the_order_is_undone(db, first):
    hold = place_hold(db, create_product(db))
    stored = store(db, "k")
    create_order(first, hold.hold_id)
    wait_until_past(db, stored.until)
    assert refunds_due(db) == []
    first.rollback()
    assert refunds_due(db) == ["k"]
    change_settings(db, inbox_keep="1 day")
    assert refunds_due(db) == ["k"]


@pytest.mark.parametrize("level", [IsolationLevel.REPEATABLE_READ, IsolationLevel.SERIALIZABLE])
def test_a_snapshot_reports_the_refunds_that_are_recorded(db, connect, product, level):
    stored = store(db, "k")
    reader = connect(autocommit=False)
    reader.isolation_level = level
    assert refunds_due(reader) == []
    wait_until_past(db, stored.until)
    assert (refunds_due(reader), refunds_due(db)) == ([], ["k"])
    reader.rollback()
    assert value(db, "select flashsale.expire_due()") == 1
    assert refunds_due(reader) == ["k"]


# --- a change of settings that stays open while a wait ends ---


def change_inbox_keep_while_a_wait_ends(db: Connection, first: Connection):
    hold = place_hold(db, create_product(db))
    stored = store(db, "k")
    change_settings(first, inbox_keep="1 day")
    wait_until_past(db, stored.until)
    assert create_order(db, hold.hold_id).status == "pending_payment"
    told = refunds_due(db)
    first.commit()
    return told, refunds_due(db)


def test_a_webhook_that_was_passed_over_does_not_wait_again(db, first):
    assert change_inbox_keep_while_a_wait_ends(db, first) == (["k"], ["k"])
    assert value(db, "select result from flashsale.payments") == "refund_due"


def test_a_webhook_that_was_passed_over_does_not_wait_again_control(db, first, without):
    """With deadlines that move with the setting, and orders that leave what they pass over."""
    without("wait-only-shortened", "")
    without("wait-ended", "and false")
    assert change_inbox_keep_while_a_wait_ends(db, first) == (["k"], [])
    assert audit(db) == ["webhook_missed_its_order"]


def test_a_shorter_inbox_keep_holds_for_what_is_stored_and_a_longer_one_for_what_comes(db):
    change_settings(db, inbox_keep="1 hour")
    apply_payment(db, "old", 1001)
    waits = (
        "select date_trunc('second', wait_ends_at - received_at)"
        " from flashsale.payments where idempotency_key = %s"
    )
    change_settings(db, inbox_keep="2 hours")
    apply_payment(db, "new", 1002)
    assert [str(value(db, waits, key)) for key in ("old", "new")] == ["1:00:00", "2:00:00"]
    change_settings(db, inbox_keep="30 minutes")
    assert [str(value(db, waits, key)) for key in ("old", "new")] == ["0:30:00", "0:30:00"]


def test_the_inbox_limit_is_read_after_its_lock(db, first, second, blocked):
    """It becomes smaller while a webhook waits for the inbox."""
    change_settings(db, inbox_limit=2)
    apply_payment(first, "a", 1001)
    webhook = blocked(apply_payment, second, "b", 1002)
    change_settings(db, inbox_limit=1)
    first.commit()
    assert webhook.result() == "SA011"


# --- a batch beside a key that is being swept ---


@pytest.mark.parametrize("end", ["commit", "rollback"])
def test_a_key_whose_webhook_a_sweep_is_ending_is_waited_for(db, product, first, second, blocked, end):
    order = order_units(db, product)
    stored = store(db, "k", "failed")
    wait_until_past(db, stored.until)
    assert value(first, "select flashsale.expire_due()") == 1
    # The same webhook again gets what is recorded; for another one the key is not reported as taken.
    assert apply_payment(db, "k", stored.order_id, "failed").result == "stored"
    news = [("k", order.order_id, "success"), ("new", order.order_id, "failed")]
    assert sqlstates(apply_payments(db, *news)) == ["55P03", None]
    payment = blocked(apply_payment, second, "k", order.order_id)
    getattr(first, end)()
    assert payment.result().result == "applied"


def end_waits_now(db: Connection) -> None:
    db.execute("update flashsale_data.payments set wait_ends_at = clock_timestamp() where result = 'stored'")


def test_payments_under_each_others_keys_do_not_deadlock(db, connect, first, blocked):
    """Each has a key whose old webhook was for the order of the other."""
    apply_payment(db, "a", 10**9, "failed")
    apply_payment(db, "b", 10**9 + 1, "failed")
    end_waits_now(db)
    apply_payment(first, "c", 10**9 + 1, "failed")
    second, third = connect(), connect()
    payments = [blocked(apply_payment, second, "a", 10**9 + 1), blocked(apply_payment, third, "b", 10**9)]
    first.commit()
    answers = [getattr(payment.result(), "result", payment.result()) for payment in payments]
    # Either may have to be sent again, since the other had an order of its own locked.
    assert {*answers} <= {"55P03", "stored"}
    assert {apply_payment(db, *news).result for news in (("a", 10**9 + 1), ("b", 10**9))} == {"stored"}
