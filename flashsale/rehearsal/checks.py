"""Comparisons of what the buyers observed with the state of the database."""

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from flashsale.rehearsal.database_state import DatabaseState
from flashsale.rehearsal.observations import NO_RESPONSE, Observations, Outcome, Webhook

MAX_LISTED = 3
"""errors in the detail of a check"""


@dataclass(frozen=True)
class Check:
    """The result of a check, with the numbers that were compared."""

    name: str
    passed: bool
    detail: str


def check(observed: Observations, state: DatabaseState, stock: int) -> list[Check]:
    """Run every check."""
    return [run(observed, state, stock) for run in _CHECKS]


def _units_add_up(observed: Observations, state: DatabaseState, stock: int) -> Check:
    parts = (state.paid, state.awaiting, state.held, state.available)
    difference, over_http = "", observed.available_at_end
    if over_http != state.available:
        difference = f"; over HTTP: {'no response' if over_http is None else f'{over_http:,} available'}"
    return Check(
        "sold + awaiting payment + held + available = stock",
        sum(parts) == stock == state.total and not difference,
        f"{' + '.join(f'{part:,}' for part in parts)} = {sum(parts):,} of {stock:,}{difference}",
    )


def _nothing_oversold(observed: Observations, state: DatabaseState, stock: int) -> Check:
    bought = [purchase for purchase in observed.purchases if purchase.outcome is Outcome.BOUGHT]
    twice = sum(count > 1 for count in Counter(purchase.buyer.number for purchase in bought).values())
    return Check(
        "every unit is sold once, to one buyer",
        len(bought) == state.paid <= stock and not twice,
        f"{len(bought):,} buyers bought a unit, {state.paid:,} units are paid"
        + (f", {twice:,} buyers have more than one" if twice else ""),
    )


def _nothing_undersold(observed: Observations, state: DatabaseState, stock: int) -> Check:
    unsold = state.total - state.paid
    return Check(
        "no unit is unsold while a buyer wants one",
        not (unsold and observed.sold_out),
        f"{unsold:,} units unsold, {observed.sold_out:,} buyers without one",
    )


def _holds(observed: Observations, state: DatabaseState, stock: int) -> Check:
    acknowledged = [purchase.hold_id for purchase in observed.purchases]
    return _compare_ids("the ledger has exactly the acknowledged holds", acknowledged, state, "hold_placed")


def _orders(observed: Observations, state: DatabaseState, stock: int) -> Check:
    acknowledged = [purchase.order_id for purchase in observed.purchases if purchase.order_id is not None]
    return _compare_ids(
        "the ledger has exactly the acknowledged orders", acknowledged, state, "order_created"
    )


def _compare_ids(name: str, ids: Iterable[int], state: DatabaseState, kind: str) -> Check:
    """Each id was acknowledged once, and is in the ledger once in an event of this kind."""
    acknowledged, recorded = Counter(ids), Counter(state.events[kind])
    lost, unknown = (acknowledged - recorded).total(), (recorded - acknowledged).total()
    what = kind.partition("_")[0] + "s"
    return Check(
        name,
        not lost and not unknown,
        f"{acknowledged.total():,} {what}"
        + (f", {lost:,} of them not in the ledger" if lost else "")
        + (f", {unknown:,} others in the ledger" if unknown else ""),
    )


def _payments(observed: Observations, state: DatabaseState, stock: int) -> Check:
    webhooks = observed.webhooks
    wrong = [
        f"{webhook.key}: acknowledged as {webhook.result}, recorded as {state.payments.get(webhook.key)}"
        for webhook in webhooks
        if state.payments.get(webhook.key)
        not in _expected_records(webhook, unmatched=webhook in observed.unmatched)
    ]
    unknown = state.payments.keys() - {webhook.key for webhook in webhooks}
    wrong += [f"{key}: not sent by this rehearsal" for key in sorted(unknown)]
    return Check(
        "every webhook is recorded as it was acknowledged",
        not wrong,
        _listed(f"{len(webhooks):,} webhooks", wrong),
    )


def _expected_records(webhook: Webhook, *, unmatched: bool) -> set[tuple[str, str]]:
    """The possible records of a webhook. The order applies one that was stored before it."""
    if webhook.result != "stored":
        return {(webhook.status, webhook.result)}
    results = ["stored", "amount_mismatch"] if unmatched else ["applied"]
    return {(webhook.status, result) for result in results}


def _money(observed: Observations, state: DatabaseState, stock: int) -> Check:
    captured = [
        key for key, (status, result) in state.payments.items() if status == "success" and result != "stored"
    ]
    refunds = ("refund_due", "amount_mismatch")
    acknowledged = {webhook.key for webhook in observed.webhooks if webhook.result in refunds}
    wrong = len(acknowledged ^ state.refunds)
    return Check(
        "captured payments = units sold + refunds due",
        len(captured) == state.paid + len(state.refunds) and not wrong,
        f"{len(captured):,} = {state.paid:,} + {len(state.refunds):,}"
        + (f"; {wrong:,} refunds are acknowledged but not due, or due but not acknowledged" if wrong else ""),
    )


def _repeats(observed: Observations, state: DatabaseState, stock: int) -> Check:
    return Check(
        "duplicate requests took effect once and got the same response",
        not observed.mismatches,
        _listed(f"{observed.duplicates:,} duplicate requests", observed.mismatches),
    )


def _responses(observed: Observations, state: DatabaseState, stock: int) -> Check:
    retries = Counter(
        "no response" if call.status == NO_RESPONSE else call.code or str(call.status)
        for call in observed.calls
        if call.retried
    )
    failed = Counter(f"{call.status} {call.code}" for call in observed.calls if call.status >= 500)
    failed -= Counter(f"{call.status} {call.code}" for call in observed.calls if call.retried)
    wrong = [f"{status}: {count:,} times" for status, count in failed.items()] + observed.errors
    reasons = ", ".join(f"{count:,} {code}" for code, count in retries.items())
    return Check(
        "no request failed, or a retry succeeded",
        not wrong,
        _listed(f"{len(observed.calls):,} requests, retries: {reasons or 'none'}", wrong),
    )


def _audit(observed: Observations, state: DatabaseState, stock: int) -> Check:
    return Check(
        "audit() finds no violated invariant", not state.audit, _listed("the whole database", state.audit)
    )


def _listed(summary: str, wrong: list[str]) -> str:
    more = f"; and {len(wrong) - MAX_LISTED:,} more" if len(wrong) > MAX_LISTED else ""
    return "; ".join([summary, *wrong[:MAX_LISTED]]) + more


_CHECKS: list[Callable[[Observations, DatabaseState, int], Check]] = [
    _units_add_up,
    _nothing_oversold,
    _nothing_undersold,
    _holds,
    _orders,
    _payments,
    _money,
    _repeats,
    _responses,
    _audit,
]
