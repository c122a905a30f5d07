"""Each check of a rehearsal passes for a correct sale, and fails for each single error."""

import pytest

from flashsale.rehearsal.checks import check
from flashsale.rehearsal.observations import Call, Operation, Outcome, Webhook
from tests.support.rehearsals import STOCK, observed, purchase, state

ADD_UP = "sold + awaiting payment + held + available = stock"
ONCE = "every unit is sold once, to one buyer"
UNSOLD = "no unit is unsold while a buyer wants one"
HOLDS = "the ledger has exactly the acknowledged holds"
ORDERS = "the ledger has exactly the acknowledged orders"
WEBHOOKS = "every webhook is recorded as it was acknowledged"
MONEY = "captured payments = units sold + refunds due"
REPEATS = "duplicate requests took effect once and got the same response"
RESPONSES = "no request failed, or a retry succeeded"
AUDIT = "audit() finds no violated invariant"


def failed(observed, state):
    return {one.name for one in check(observed, state, STOCK) if not one.passed}


def test_a_correct_sale_passes_every_check():
    found = check(observed(), state(), STOCK)
    assert [one.name for one in found] == [
        ADD_UP, ONCE, UNSOLD, HOLDS, ORDERS, WEBHOOKS, MONEY, REPEATS, RESPONSES, AUDIT,
    ]  # fmt: skip
    assert all(one.passed for one in found)


def unit_lost(observed, state):
    state.total = 4


def http_has_other_stock(observed, state):
    observed.available_at_end = 1


def more_paid_than_bought(observed, state):
    state.paid, state.total = 4, 4


def one_buyer_has_two(observed, state):
    observed.purchases[1].buyer = observed.purchases[0].buyer


def one_unsold(observed, state):
    observed.purchases[0].outcome = Outcome.LEFT
    state.paid, state.available, observed.available_at_end = 2, 1, 1


def hold_lost(observed, state):
    state.events["hold_placed"].remove(102)


def unknown_hold(observed, state):
    state.events["hold_placed"].append(999)


def hold_acknowledged_twice(observed, state):
    observed.purchases[3].hold_id = 101


def order_lost(observed, state):
    state.events["order_created"].remove(1)


def unknown_order(observed, state):
    state.events["order_created"].append(99)


def webhook_lost(observed, state):
    del state.payments["key-5-0"]


def webhook_recorded_differently(observed, state):
    state.payments["key-5-0"] = ("failed", "no_change")


def early_webhook_not_applied(observed, state):
    state.payments["key-3-0"] = ("success", "stored")


def unknown_payment(observed, state):
    state.payments["other"] = ("failed", "no_change")


def refund_lost(observed, state):
    state.refunds.clear()


def refund_of_another_payment(observed, state):
    state.refunds = {"key-1-0"}


def mismatch(observed, state):
    observed.mismatches.append("hold: 1 and 2")


def error_500(observed, state):
    observed.calls.append(Call(Operation.ORDER, 1, 0.1, 500, "internal_error", False))


def no_response(observed, state):
    observed.errors.append("hold: 503 overloaded 10 times")


def invariant_violated(observed, state):
    state.audit.append("ledger: does not add up")


@pytest.mark.parametrize(
    ("inject", "expected"),
    [
        (unit_lost, {ADD_UP, UNSOLD}),
        (http_has_other_stock, {ADD_UP}),
        (more_paid_than_bought, {ADD_UP, ONCE, MONEY}),
        (one_buyer_has_two, {ONCE}),
        (one_unsold, {UNSOLD, MONEY}),
        (hold_lost, {HOLDS}),
        (unknown_hold, {HOLDS}),
        (hold_acknowledged_twice, {HOLDS}),
        (order_lost, {ORDERS}),
        (unknown_order, {ORDERS}),
        (webhook_lost, {WEBHOOKS}),
        (webhook_recorded_differently, {WEBHOOKS}),
        (early_webhook_not_applied, {WEBHOOKS, MONEY}),
        (unknown_payment, {WEBHOOKS}),
        (refund_lost, {MONEY}),
        (refund_of_another_payment, {MONEY}),
        (mismatch, {REPEATS}),
        (error_500, {RESPONSES}),
        (no_response, {RESPONSES}),
        (invariant_violated, {AUDIT}),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_each_error_is_found(inject, expected):
    observations, found = observed(), state()
    inject(observations, found)
    assert failed(observations, found) == expected


def test_units_may_be_unsold_if_no_buyer_wants_one():
    observations, found = observed(), state()
    one_unsold(observations, found)
    observations.sold_out = 0
    assert UNSOLD not in failed(observations, found)


def test_an_early_webhook_for_another_products_order_is_a_refund():
    observations, found = observed(), state()
    observations.unmatched.append(Webhook("unmatched", 77, "success", "amount_mismatch", "pending_payment"))
    found.payments["unmatched"] = ("success", "amount_mismatch")
    found.refunds.add("unmatched")
    assert failed(observations, found) == set()


def test_details_list_three_errors_and_count_the_rest():
    observations, found = observed(), state()
    observations.errors += [f"error {n}" for n in range(5)]
    detail = next(one.detail for one in check(observations, found, STOCK) if one.name == RESPONSES)
    assert detail.endswith("retries: 1 overloaded; error 0; error 1; error 2; and 2 more")


def test_a_buyer_whose_hold_expired_may_buy_again():
    observations, found = observed(), state()
    again = purchase(6, Outcome.EXPIRED, order=False)
    again.buyer = observations.purchases[0].buyer
    observations.purchases.append(again)
    found.events["hold_placed"].append(106)
    assert failed(observations, found) == set()
