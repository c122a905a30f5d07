"""The rules that must hold at the end of a round, judged by its history and its tables."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from typing import Any

from proof.transactions.history import History, Response, Transaction, Violation
from proof.transactions.requests import PRICE, SHORTEST_INBOX_KEEP
from proof.transactions.responses import RULES as RESPONSE_RULES
from proof.transactions.responses import body_of
from proof.transactions.state import Row, State

Violations = Iterator[Violation]


# --- holds and orders ---


def holds_are_as_answered(history: History, state: State) -> Violations:
    """Each committed hold exists once, or was removed, with the product, quantity and key of its request.
    There is no other."""
    expected = {
        hold_id: (row["product_id"], row["qty"], row["idempotency_key"])
        for hold_id, row in state.all_holds.items()
    }
    yield from _as_answered(history, "place_hold", "hold", expected, lambda response: response.request)


def orders_are_as_answered(history: History, state: State) -> Violations:
    """Each committed order exists once, or was removed, with the hold and key of its request, the units of
    the hold, and the amount of the response. There is no other."""
    holds = state.all_holds

    def answered(response: Response) -> tuple:
        hold = holds.get(response.request[0], {})
        return (*response.request, hold.get("product_id"), hold.get("qty"), response.outcome.amount)

    expected = {
        order_id: (row["hold_id"], row["idempotency_key"], row["product_id"], row["qty"], row["amount"])
        for order_id, row in state.all_orders.items()
    }
    yield from _as_answered(history, "create_order", "order", expected, answered)
    for order_id, row in state.all_orders.items():
        if row["amount"] != row["qty"] * PRICE:
            yield Violation("orders are as answered", f"wrong amount: {row}", (("order", order_id),))


def _as_answered(
    history: History,
    function: str,
    kind: str,
    expected: dict[int, tuple],
    answered: Callable[[Response], tuple],
) -> Violations:
    rule = f"{kind}s are as answered"
    created: Counter[int] = Counter()
    for transaction, response in history.committed(function):
        found = getattr(response.outcome, f"{kind}_id")
        created[found] += not response.outcome.replayed
        if expected.get(found) != answered(response):
            yield Violation.of(rule, transaction, response, f"the row is {expected.get(found)}")
    for found in created.keys() | expected.keys():
        if created[found] != 1:
            yield Violation(rule, f"{kind} {found} was created {created[found]} times", ((kind, found),))


def a_released_hold_stays_released(history: History, state: State) -> Violations:
    """A committed release is final."""
    holds = state.all_holds
    for transaction, response in history.committed("release_hold"):
        hold = holds.get(response.request[0])
        if hold is None or hold["status"] != "released":
            yield Violation.of("a released hold stays released", transaction, response, f"{hold}")


def only_finished_rows_are_removed(history: History, state: State) -> Violations:
    """Ended holds, cancelled orders without a captured payment, and webhooks that captured nothing: with
    their order, or after their wait."""
    rule = "only finished rows are removed"
    removed_orders = {row["order_id"]: row for row in state.removed["orders"]}
    for order_id, row in removed_orders.items():
        captured = [
            key
            for key, payment in state.payments.items()
            if payment["order_id"] == order_id and _captured_before(payment, row["removed_at"])
        ]
        if row["status"] != "cancelled" or captured:
            subjects = (("order", order_id), *(("webhook", key) for key in captured))
            yield Violation(rule, f"order {row}, captured by {captured}", subjects)
    holds_of_orders = {row["hold_id"] for row in removed_orders.values()}
    for row in state.removed["holds"]:
        if row["status"] not in ("expired", "released") and row["hold_id"] not in holds_of_orders:
            yield Violation(rule, f"hold {row}", (("hold", row["hold_id"]),))
    for row in state.removed["payments"]:
        waited = row["removed_at"] - row["received_at"]
        expired = row["result"] == "stored" and waited >= SHORTEST_INBOX_KEEP
        if row["status"] == "success" or not (expired or row["order_id"] in removed_orders):
            yield Violation(rule, f"webhook {row}", (("webhook", row["idempotency_key"]),))


def _captured_before(payment: Row, instant: float) -> bool:
    """A webhook that comes after its order was removed is one of an unknown order."""
    return payment["status"] == "success" and payment["received_at"] < instant


# --- webhooks ---


def webhooks_are_as_sent(history: History, state: State) -> Violations:
    """Each accepted webhook is recorded, or was removed, with the body of its request. There is no other."""
    recorded = defaultdict(set)
    for row in [*state.payments.values(), *state.removed["payments"]]:
        recorded[row["idempotency_key"]].add((row["order_id"], row["status"], row["amount"]))
    accepted = {
        key: {body_of(response.request) for _, response in responses}
        for key, responses in _webhooks(history).items()
    }
    for key in recorded.keys() | accepted.keys():
        if recorded[key] != accepted.get(key):
            detail = f"{key} was accepted as {accepted.get(key)} and is recorded as {recorded[key]}"
            yield Violation("webhooks are as sent", detail, _webhook_subjects(key, recorded[key]))


def a_result_is_final(history: History, state: State) -> Violations:
    """The result of a key changes at most once, from `stored`. Keys that were free again are left out."""
    removed = {row["idempotency_key"] for row in state.removed["payments"]}
    for key, responses in _webhooks(history).items():
        row = state.payments.get(key)
        if row is None or key in removed:
            continue
        final = [(t, r) for t, r in responses if r.outcome.result != "stored"]
        results = {response.outcome.result for _, response in final}
        known_at = min((transaction.committed_at for transaction, _ in final), default=float("inf"))
        reverted = any(r.outcome.result == "stored" and r.began > known_at for _, r in responses)
        if reverted or len(results) > 1 or (results and row["result"] not in results):
            detail = f"{key} was answered {results}{', then stored' if reverted else ''}, and is {row}"
            yield Violation("a result is final", detail, (("webhook", key), ("order", row["order_id"])))


def captured_money_is_in_one_book(history: History, state: State) -> Violations:
    """A captured payment pays its order, or is one refund with an amount, or waits for its order. A paid
    order has one payment."""
    rule = "captured money is in one book"
    paying = defaultdict(list)
    for key, responses in _webhooks(history).items():
        captured = [r.request for _, r in responses if r.request[2] == "success"]
        if not captured:
            continue
        _, order_id, _, payload = captured[0]
        order, row, refunds = state.orders.get(order_id), state.payments.get(key), state.refunds[key]
        match row and row["result"]:
            case "applied":
                paying[order_id].append(key)
                right = order is not None and order["status"] == "paid" and not refunds
            case "refund_due" | "amount_mismatch":
                has_amount = order is not None or "amount" in payload
                right = len(refunds) == 1 and (refunds[0].amount is not None or not has_amount)
            case "stored":
                right = order is None and len(refunds) <= 1
            case _:
                right = False
        if not right:
            detail = f"{key} is {row}, its order {order}, its refunds {refunds}"
            yield Violation(rule, detail, (("webhook", key), ("order", order_id)))
    for order_id, order in state.all_orders.items():
        if len(paying[order_id]) != (order["status"] == "paid"):
            yield Violation(rule, f"{order} has payments {paying[order_id]}", (("order", order_id),))


def the_inbox_is_counted(history: History, state: State) -> Violations:
    """The counter is the number of stored webhooks; after a sweep none of them has an order."""
    stored = {key: row for key, row in state.payments.items() if row["result"] == "stored"}
    if state.inbox != len(stored):
        yield Violation("the inbox is counted", f"{state.inbox} counted, {len(stored)} stored")
    for key, row in stored.items():
        if row["order_id"] in state.orders:
            detail = f"{row} is stored, and its order exists"
            yield Violation("the inbox is counted", detail, (("webhook", key), ("order", row["order_id"])))


def _webhooks(history: History) -> dict[str, list[tuple[Transaction, Response]]]:
    """By key, the committed responses."""
    found = defaultdict(list)
    for transaction, response in history.committed("apply_payment"):
        found[response.request[0]].append((transaction, response))
    return found


def _webhook_subjects(key: str, bodies: set[tuple]) -> tuple[tuple[str, Any], ...]:
    return ("webhook", key), *(("order", order_id) for order_id, _, _ in bodies)


RULES: tuple[Callable[[History, State], Violations], ...] = (
    *RESPONSE_RULES, holds_are_as_answered, orders_are_as_answered, a_released_hold_stays_released,
    only_finished_rows_are_removed, webhooks_are_as_sent, a_result_is_final, captured_money_is_in_one_book,
    the_inbox_is_counted,
)  # fmt: skip
