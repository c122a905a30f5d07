"""Rules that each response must keep."""

from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import Any

from proof.transactions.history import History, Response, Violation
from proof.transactions.session import READ_COMMITTED
from proof.transactions.state import State
from proof.transactions.stock import insufficient_stock_is_true

SERIALIZATION_FAILURE = "40001"
FAILURES = {SERIALIZATION_FAILURE, "40P01", "55P03", "57014", "57P01", "25P02"}
"""serialization failure, deadlock, lock timeout, statement cancelled, terminated, transaction aborted"""
REFUSALS = {"SA002", "SA003", "SA004", "SA005", "SA006", "SA008", "SA009", "SA010"}

Violations = Iterator[Violation]


def only_expected_failures(history: History, state: State) -> Violations:
    """No other SQLSTATE appears. A transaction of one call at READ COMMITTED has no serialization failure."""
    for transaction, response in history.responses():
        if response.succeeded:
            continue
        single = transaction.level == READ_COMMITTED and transaction.calls == 1
        if response.outcome not in FAILURES | REFUSALS or (
            single and response.outcome == SERIALIZATION_FAILURE
        ):
            yield Violation.of("only expected failures", transaction, response)


def purge_above_read_committed_is_refused(history: History, state: State) -> Violations:
    """A snapshot could hide a payment of an order that purge removes."""
    for transaction, response in history.responses():
        if response.function == "purge" and response.succeeded and transaction.level != READ_COMMITTED:
            yield Violation.of("purge above read committed is refused", transaction, response)


def responses_are_not_stale(history: History, state: State) -> Violations:
    """At each isolation level a response accounts for what was committed before its call began."""
    placed = _committed_at(history, "place_hold", lambda response: response.outcome.hold_id)
    ended = _committed_at(history, "release_hold", lambda response: response.request[0])
    ended |= _committed_at(history, "create_order", lambda response: response.request[0])
    paid = _committed_at(history, "apply_payment", _paid_order)
    removed = {row["hold_id"] for row in state.removed["holds"]}
    for transaction, response in history.responses():
        outcome, subjects, began = response.outcome, dict(response.subjects()), response.began
        hold, order = subjects.get("hold"), subjects.get("order")
        missed = None
        # A purge of its own that was rolled back afterwards is not in the archive.
        purged = any(other.function == "purge" and other.began < began for other in transaction.responses)
        known = hold not in removed and not purged
        if outcome == "SA003" and known and placed.get(hold, began) < began:
            missed = "the hold had been placed"
        elif response.succeeded and response.function == "place_hold" and outcome.status == "active":
            missed = "the hold had ended" if ended.get(hold, began) < began else None
        elif response.succeeded and response.function == "create_order" and outcome.status != "paid":
            missed = "the order had been paid" if paid.get(order, began) < began else None
        if missed:
            yield Violation.of("responses are not stale", transaction, response, missed)


def _committed_at(history: History, function: str, subject: Callable[[Response], Any]) -> dict[Any, float]:
    times: dict[Any, float] = {}
    for transaction, response in history.committed(function):
        found = subject(response)
        times[found] = min(transaction.committed_at, times.get(found, transaction.committed_at))
    return times


def _paid_order(response: Response) -> int | None:
    return response.outcome.order_id if response.outcome.status == "paid" else None


def a_webhook_for_an_overdue_order_cancels_nothing(history: History, state: State) -> Violations:
    """The order is cancelled at `payment_due_at`, swept or not."""
    orders = state.all_orders
    for transaction, response in history.committed("apply_payment"):
        _, order_id, status, _ = response.request
        order, outcome = orders.get(order_id), response.outcome
        if status == "success" or order is None or outcome.result != "applied" or outcome.replayed:
            continue
        if response.began >= order["payment_due_at"]:
            rule = "a webhook for an overdue order cancels nothing"
            yield Violation.of(rule, transaction, response, f"{order}")


def a_reused_key_has_another_body(history: History, state: State) -> Violations:
    """SA008 is the response to a key that was accepted with other arguments."""
    split: dict[str, Callable[[tuple], tuple]] = {
        "place_hold": lambda request: (request[2], request[:2]),
        "create_order": lambda request: (request[1], request[0]),
        "apply_payment": lambda request: (request[0], body_of(request)),
    }
    accepted = defaultdict(set)
    for _, response in history.responses():
        if response.succeeded and response.function in split:
            key, body = split[response.function](response.request)
            accepted[response.function, key].add(body)
    for transaction, response in history.responses():
        if response.outcome == "SA008":
            key, body = split[response.function](response.request)
            if not accepted[response.function, key] - {body}:
                yield Violation.of("a reused key has another body", transaction, response)


def body_of(request: tuple) -> tuple:
    """What is compared of a webhook: its order, status and amount."""
    _, order_id, status, payload = request
    return order_id, status, float(payload["amount"]) if "amount" in payload else None


RULES: tuple[Callable[[History, State], Violations], ...] = (
    only_expected_failures, purge_above_read_committed_is_refused, responses_are_not_stale,
    insufficient_stock_is_true, a_webhook_for_an_overdue_order_cancels_nothing, a_reused_key_has_another_body,
)  # fmt: skip
