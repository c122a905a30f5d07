"""Each check of a rehearsal passes for a correct sale, and fails for each single error."""

from dataclasses import replace
from decimal import Decimal

import pytest

from flashsale.rehearsal.checks import check
from flashsale.rehearsal.database_state import Payment
from flashsale.rehearsal.observations import Call, Operation, Outcome, Webhook
from tests.support.rehearsals import DROP, PRICE, PRODUCT, after, bot, event, observed, purchase, state

ADD_UP = "sold + awaiting payment + held + available = stock"
ONCE = "every unit is sold once, to one buyer"
UNSOLD = "no unit is unsold while a buyer wants one"
HOLDS = "the ledger has exactly the acknowledged holds"
ORDERS = "the ledger has exactly the acknowledged orders"
WEBHOOKS = "every webhook is recorded as it was acknowledged"
MONEY = "captured = kept by paid orders + refunds due + refunded"
REPEATS = "duplicate requests took effect once and got the same response"
RESPONSES = "no request failed, or a retry succeeded"
NOT_EARLY = "early requests are refused, no hold is placed before the start"
OPENED = "the sale opens within 1 s of its start"
LIMIT = "no buyer has more than the limit at any instant"
AUDIT = "audit() finds no violated invariant"


def failed(observed, state, product=PRODUCT):
    return {one.name for one in check(observed, state, product) if not one.passed}


def remove(state, kind, hold_id):
    state.ledger.remove(next(one for one in state.ledger if (one.kind, one.hold_id) == (kind, hold_id)))


def test_a_correct_sale_passes_every_check():
    found = check(observed(), state(), DROP)
    assert [one.name for one in found] == [
        ADD_UP, ONCE, UNSOLD, HOLDS, ORDERS, WEBHOOKS, MONEY, REPEATS, RESPONSES,
        NOT_EARLY, OPENED, LIMIT, AUDIT,
    ]  # fmt: skip
    assert [one for one in found if not one.passed] == []


def test_a_sale_without_terms_has_no_checks_of_them():
    found = check(observed(), state(), PRODUCT)
    assert len(found) == 10
    assert not {NOT_EARLY, OPENED, LIMIT} & {one.name for one in found}


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
    remove(state, "hold_placed", 102)


def unknown_hold(observed, state):
    state.ledger.append(event("hold_placed", 1, 999, delta=-1))


def hold_acknowledged_twice(observed, state):
    observed.purchases[3].hold_id = 101


def order_lost(observed, state):
    remove(state, "order_created", 101)


def unknown_order(observed, state):
    state.ledger.append(event("order_created", 1, 199, 99))


def webhook_lost(observed, state):
    del state.payments["key-5-0"]


def webhook_recorded_differently(observed, state):
    state.payments["key-5-0"] = Payment("failed", "no_change", PRICE)


def early_webhook_not_applied(observed, state):
    state.payments["key-3-0"] = Payment("success", "stored", PRICE)


def unknown_payment(observed, state):
    state.payments["other"] = Payment("failed", "no_change", PRICE)


def refund_lost(observed, state):
    state.due.clear()


def refund_of_another_payment(observed, state):
    state.due, state.refunded = {"key-1-0": Decimal("66.00")}, {"key-1-0": Decimal("33.00")}
    observed.refunds = {"key-1-0": Decimal("33.00")}


def refund_of_another_amount(observed, state):
    state.due, state.refunded = {"key-5-1": Decimal("67.00")}, {"key-5-1": Decimal("32.00")}


def refund_recorded_twice(observed, state):
    state.refunded["key-5-1"] *= 2


def another_amount_captured(observed, state):
    state.payments["key-1-0"] = Payment("success", "applied", Decimal("9.90"))


def cancelled_order_not_refunded(observed, state):
    observed.purchases[1].outcome = Outcome.SHOP_CANCELLED
    state.paid, state.available, observed.available_at_end, observed.sold_out = 2, 1, 1, 0


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
        (refund_of_another_amount, {MONEY}),
        (refund_recorded_twice, {MONEY}),
        (another_amount_captured, {MONEY}),
        (cancelled_order_not_refunded, {MONEY}),
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
    observations.unmatched.append(
        Webhook("unmatched", 77, "success", "amount_mismatch", "pending_payment", PRICE)
    )
    found.payments["unmatched"] = Payment("success", "amount_mismatch", PRICE)
    found.due["unmatched"] = PRICE
    assert failed(observations, found) == set()


def test_details_list_three_errors_and_count_the_rest():
    observations, found = observed(), state()
    observations.errors += [f"error {n}" for n in range(5)]
    detail = next(one.detail for one in check(observations, found, PRODUCT) if one.name == RESPONSES)
    assert detail.endswith("retries: 1 overloaded; error 0; error 1; error 2; and 2 more")


def test_a_buyer_whose_hold_expired_may_buy_again():
    observations, found = observed(), state()
    again = purchase(6, Outcome.EXPIRED, order=False)
    again.buyer = observations.purchases[0].buyer
    observations.purchases.append(again)
    found.ledger.append(event("hold_placed", 1, 106, delta=-1))
    assert failed(observations, found) == set()


def test_an_order_that_the_shop_cancelled_is_a_refund():
    observations, found = observed(), state()
    cancelled_order_not_refunded(observations, found)
    found.due["key-2-0"] = PRICE
    assert failed(observations, found) == set()


def nothing_early(observed, state):
    observed.calls = [call for call in observed.calls if call.code != "sale_not_started"]


def hold_before_the_start(observed, state):
    state.ledger[0] = state.ledger[0]._replace(at=after(-0.001))


def late_opening(observed, state):
    state.ledger = [one._replace(at=after(1.001)) for one in state.ledger]


def never_opened(observed, state):
    state.ledger = []
    observed.purchases = []


@pytest.mark.parametrize(
    ("inject", "expected"),
    [
        (nothing_early, {NOT_EARLY}),
        (hold_before_the_start, {NOT_EARLY}),
        (late_opening, {OPENED}),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_each_error_at_the_start_is_found(inject, expected):
    observations, found = observed(), state()
    inject(observations, found)
    assert failed(observations, found, DROP) == expected


def test_a_sale_that_never_opened_is_found():
    observations, found = observed(), state()
    never_opened(observations, found)
    assert OPENED in failed(observations, found, DROP)


def held_by_bots(*holds):
    """The sale, and holds of bots with one account: (hold_id, qty, begin, end of the hold)."""
    observations, found = observed(), state()
    for hold_id, qty, begin, end in holds:
        made = purchase(hold_id, Outcome.EXPIRED, order=False)
        made.buyer, made.hold_id, made.qty, made.expires_at = bot(hold_id), hold_id, qty, after(end)
        observations.purchases.append(made)
        found.ledger.append(event("hold_placed", begin, hold_id, delta=-qty))
    return observations, found


@pytest.mark.parametrize(
    ("holds", "kept"),
    [
        ([(201, 2, 1, 9)], True),
        ([(201, 3, 1, 9)], False),
        ([(201, 1, 1, 9), (202, 1, 2, 9)], True),
        ([(201, 1, 1, 9), (202, 2, 2, 9)], False),
        ([(201, 2, 1, 9), (202, 2, 9, 12)], True),
        ([(201, 2, 1, 9), (202, 2, 8.999, 12)], False),
    ],
)
def test_the_limit_is_checked_at_every_instant(holds, kept):
    """What has lapsed counts no more, whether or not the ledger has its event yet."""
    assert (LIMIT not in failed(*held_by_bots(*holds), DROP)) is kept


@pytest.mark.parametrize(
    ("events", "kept"),
    [
        ([event("hold_released", 1.5, 201, delta=2)], True),
        ([event("hold_released", 2.5, 201, delta=2)], False),
        ([event("hold_expired", 2.5, 201, delta=2)], False),
        ([event("order_created", 1.2, 201, 7), event("order_cancelled", 1.5, 201, 7, 2)], True),
        ([event("order_created", 1.2, 201, 7), event("order_paid", 1.5, 201, 7)], False),
        (
            [
                event("order_created", 1.2, 201, 7),
                event("order_cancelled", 1.5, 201, 7, 2),
                event("order_paid", 3, 201, 7, -2),
            ],
            False,
        ),
    ],
)
def test_what_ends_before_another_hold_does_not_count(events, kept):
    observations, found = held_by_bots((201, 2, 1, 9), (202, 2, 2, 9))
    found.ledger += events
    assert (LIMIT not in failed(observations, found, DROP)) is kept


def test_an_overdue_order_counts_until_it_is_due():
    for due, kept in ((2, True), (2.5, False)):
        observations, found = held_by_bots((201, 2, 1, 9), (202, 2, 2, 9))
        observations.purchases[-2].payment_due_at = after(due)
        found.ledger.append(event("order_created", 1.2, 201, 7))
        assert (LIMIT not in failed(observations, found, DROP)) is kept


def test_a_limit_of_a_single_unit_applies_to_buyers_too():
    observations, found = observed(), state()
    assert LIMIT not in failed(observations, found, replace(DROP, limit=1))
    observations.purchases[1].buyer = observations.purchases[0].buyer
    assert LIMIT in failed(observations, found, replace(DROP, limit=1))
