"""Whether a refusal for want of stock was right: a bound on what was available while the call ran."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

from proof.transactions.history import History, Response, Transaction, Violation
from proof.transactions.state import State

INSUFFICIENT_STOCK = "SA002"


@dataclass(frozen=True)
class Taken:
    """Units that may have been unavailable from `began` to `ended`.

    :param transaction: the one that took them: until it commits, no other sees it
    :param undone: a rollback has undone that; they were unavailable to this transaction alone
    """

    transaction: Transaction
    product: int
    qty: int
    began: float
    ended: float
    undone: bool = False


def insufficient_stock_is_true(history: History, state: State) -> Iterator[Violation]:
    """A refused quantity was not available throughout the call. Every unit that may have been taken at any
    moment of the call counts as taken."""
    taken = [
        *_taken_by_holds(history, state),
        *_taken_by_undone_orders(history, state),
        *_taken_by_adjustments(history),
    ]
    created = {
        event["product_id"]: event["available_delta"]
        for event in state.ledger
        if event["kind"] == "product_created"
    }
    for transaction, response in history.responses():
        if response.outcome != INSUFFICIENT_STOCK:
            continue
        product, qty, _ = response.request
        available = created[product] - sum(
            units.qty
            for units in taken
            if units.product == product and _overlaps(units, transaction, response)
        )
        if available >= qty:
            detail = f"at least {available} were available:"
            yield Violation.of("insufficient stock is true", transaction, response, detail)


def _overlaps(units: Taken, transaction: Transaction, response: Response) -> bool:
    committed = units.transaction.status == "committed" and not units.undone
    visible = committed or units.transaction is transaction
    return visible and units.began <= response.ended and units.ended >= response.began


def _taken_by_holds(history: History, state: State) -> Iterator[Taken]:
    """From the request to the end of the hold, or of its order."""
    ends = {hold_id: row["expires_at"] for hold_id, row in state.all_holds.items()}
    for transaction, response in history.committed("release_hold"):
        hold_id = response.request[0]
        ends[hold_id] = min(ends.get(hold_id, math.inf), transaction.committed_at)
    for order in state.all_orders.values():
        ends[order["hold_id"]] = math.inf if order["status"] == "paid" else order["payment_due_at"]
    for transaction, response in history.responses():
        if response.function == "place_hold" and response.succeeded and not response.outcome.replayed:
            product, qty, _ = response.request
            ended = ends.get(response.outcome.hold_id, math.inf)
            yield Taken(transaction, product, qty, response.began, ended)


def _taken_by_undone_orders(history: History, state: State) -> Iterator[Taken]:
    """An order, or a late payment of one, takes units for longer than the tables say once it is undone."""
    for transaction, response in history.responses():
        if not response.succeeded or (transaction.status == "committed" and not response.rolled_back):
            continue
        row = None
        if response.function == "create_order":
            row = state.all_holds.get(response.request[0])
        elif response.function == "apply_payment" and response.outcome.result == "applied":
            row = state.all_orders.get(response.request[1])
        if row is not None:
            yield Taken(transaction, row["product_id"], row["qty"], response.began, math.inf, undone=True)


def _taken_by_adjustments(history: History) -> Iterator[Taken]:
    """Units are taken away from the request on. Units that are added count from the commit on: as added at
    all times, and as taken until then."""
    for transaction, response in history.responses():
        if response.function == "adjust_stock" and response.succeeded:
            product, delta = response.request
            if delta < 0:
                yield Taken(transaction, product, -delta, response.began, math.inf)
            elif transaction.status == "committed" and not response.rolled_back:
                yield Taken(transaction, product, -delta, -math.inf, math.inf)
                yield Taken(transaction, product, delta, -math.inf, transaction.committed_at)
