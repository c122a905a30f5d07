"""Each check of a rehearsal holds where all went right, and fails where one thing did not."""

import pytest

from flashsale.rehearsal.checks import check
from flashsale.rehearsal.record import Call, Kind, Outcome, Word
from tests.support.rehearsals import STOCK, books, purchase, seen

ADD_UP = "sold + awaiting payment + held + available = stock"
ONCE = "every unit sold once, to one buyer"
UNSOLD = "nothing unsold while somebody wanted it"
HOLDS = "every hold that was promised is in the ledger, and no other"
ORDERS = "every order that was promised is in the ledger, and no other"
WEBHOOKS = "every webhook is recorded as it was answered"
MONEY = "captured payments = units sold + refunds due"
REPEATS = "requests sent twice took effect once and got the same answer"
ANSWERS = "every request got a proper answer, at the latest when asked again"
AUDIT = "audit() finds nothing"


def failed(seen, books):
    return {one.name for one in check(seen, books, STOCK) if not one.held}


def test_all_hold_where_all_went_right():
    found = check(seen(), books(), STOCK)
    assert [one.name for one in found] == [
        ADD_UP, ONCE, UNSOLD, HOLDS, ORDERS, WEBHOOKS, MONEY, REPEATS, ANSWERS, AUDIT,
    ]  # fmt: skip
    assert all(one.held for one in found)


def unit_lost(seen, books):
    books.total = 4


def http_tells_another_stock(seen, books):
    seen.available_at_end = 1


def more_sold_than_told(seen, books):
    books.paid, books.total = 4, 4


def one_buyer_has_two(seen, books):
    seen.purchases[1].buyer = seen.purchases[0].buyer


def one_unsold(seen, books):
    seen.purchases[0].outcome = Outcome.LEFT
    books.paid, books.available, seen.available_at_end = 2, 1, 1


def hold_lost(seen, books):
    books.events["hold_placed"].remove(102)


def hold_of_a_stranger(seen, books):
    books.events["hold_placed"].append(999)


def hold_given_twice(seen, books):
    seen.purchases[3].hold_id = 101


def order_lost(seen, books):
    books.events["order_created"].remove(1)


def order_doubled(seen, books):
    books.events["order_created"].append(99)


def webhook_lost(seen, books):
    del books.payments["key-5-0"]


def webhook_recorded_otherwise(seen, books):
    books.payments["key-5-0"] = ("failed", "no_change")


def early_webhook_forgotten(seen, books):
    books.payments["key-3-0"] = ("success", "stored")


def payment_by_a_stranger(seen, books):
    books.payments["other"] = ("failed", "no_change")


def refund_forgotten(seen, books):
    books.refunds.clear()


def refund_told_of_another(seen, books):
    books.refunds = {"key-1-0"}


def contradiction(seen, books):
    seen.contradictions.append("hold: 1 and 2")


def error_500(seen, books):
    seen.calls.append(Call(Kind.ORDER, 1, 0.1, 500, "internal_error", False))


def never_answered(seen, books):
    seen.faults.append("hold: 503 overloaded 10 times")


def audit_finds(seen, books):
    books.audit.append("ledger: does not add up")


@pytest.mark.parametrize(
    ("spoil", "expected"),
    [
        (unit_lost, {ADD_UP, UNSOLD}),
        (http_tells_another_stock, {ADD_UP}),
        (more_sold_than_told, {ADD_UP, ONCE, MONEY}),
        (one_buyer_has_two, {ONCE}),
        (one_unsold, {UNSOLD, MONEY}),
        (hold_lost, {HOLDS}),
        (hold_of_a_stranger, {HOLDS}),
        (hold_given_twice, {HOLDS}),
        (order_lost, {ORDERS}),
        (order_doubled, {ORDERS}),
        (webhook_lost, {WEBHOOKS}),
        (webhook_recorded_otherwise, {WEBHOOKS}),
        (early_webhook_forgotten, {WEBHOOKS, MONEY}),
        (payment_by_a_stranger, {WEBHOOKS}),
        (refund_forgotten, {MONEY}),
        (refund_told_of_another, {MONEY}),
        (contradiction, {REPEATS}),
        (error_500, {ANSWERS}),
        (never_answered, {ANSWERS}),
        (audit_finds, {AUDIT}),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_one_thing_wrong_is_found(spoil, expected):
    sight, found = seen(), books()
    spoil(sight, found)
    assert failed(sight, found) == expected


def test_what_is_unsold_may_be_if_nobody_wanted_it():
    sight, found = seen(), books()
    one_unsold(sight, found)
    sight.sold_out = 0
    assert UNSOLD not in failed(sight, found)


def test_an_early_webhook_that_met_another_products_order_is_a_refund():
    sight, found = seen(), books()
    sight.strays.append(Word("stray", 77, "success", "amount_mismatch", "pending_payment"))
    found.payments["stray"] = ("success", "amount_mismatch")
    found.refunds.add("stray")
    assert failed(sight, found) == set()


def test_details_name_a_few_and_count_the_rest():
    sight, found = seen(), books()
    sight.faults += [f"fault {n}" for n in range(5)]
    detail = next(one.detail for one in check(sight, found, STOCK) if one.name == ANSWERS)
    assert detail.endswith("sent again: 1 overloaded; fault 0; fault 1; fault 2; and 2 more")


def test_a_lapsed_buyer_may_come_again():
    sight, found = seen(), books()
    again = purchase(6, Outcome.LAPSED, order=False)
    again.buyer = sight.purchases[0].buyer
    sight.purchases.append(again)
    found.events["hold_placed"].append(106)
    assert failed(sight, found) == set()
