"""Comparisons of what the buyers observed with the state of the database."""

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from flashsale.rehearsal.database_state import DatabaseState
from flashsale.rehearsal.holdings import most_units
from flashsale.rehearsal.observations import NO_RESPONSE, Observations, Outcome, Webhook
from flashsale.rehearsal.throwaway_product import CURRENCY, PRICE, Product

MAX_LISTED = 3
"""errors in the detail of a check"""
OPENING_TOLERANCE_SECONDS = 1.0
"""seconds from the start to the first hold; a request takes a part of that on a machine under load"""


@dataclass(frozen=True)
class Check:
    """The result of a check, with the numbers that were compared."""

    name: str
    passed: bool
    detail: str


def check(observed: Observations, state: DatabaseState, product: Product) -> list[Check]:
    """Run every check that applies to the terms of the product."""
    checks = list(_CHECKS)
    if product.starts_at is not None:
        checks[-1:-1] = [_not_early, _opened]
    if product.limit is not None:
        checks[-1:-1] = [_limit_kept]
    return [run(observed, state, product) for run in checks]


def _units_add_up(observed: Observations, state: DatabaseState, product: Product) -> Check:
    parts = (state.paid, state.awaiting, state.held, state.available)
    difference, over_http = "", observed.available_at_end
    if over_http != state.available:
        difference = f"; over HTTP: {'no response' if over_http is None else f'{over_http:,} available'}"
    return Check(
        "sold + awaiting payment + held + available = stock",
        sum(parts) == product.stock == state.total and not difference,
        f"{' + '.join(f'{part:,}' for part in parts)} = {sum(parts):,} of {product.stock:,}{difference}",
    )


def _nothing_oversold(observed: Observations, state: DatabaseState, product: Product) -> Check:
    bought = [purchase for purchase in observed.purchases if purchase.outcome is Outcome.BOUGHT]
    units = sum(purchase.qty for purchase in bought)
    buyers = Counter(purchase.buyer.number for purchase in bought if not purchase.buyer.is_bot)
    twice = sum(count > 1 for count in buyers.values())
    return Check(
        "every unit is sold once, to one buyer",
        units == state.paid <= product.stock and not twice,
        f"{units:,} units were bought, {state.paid:,} are paid"
        + (f", {twice:,} buyers have more than one" if twice else ""),
    )


def _nothing_undersold(observed: Observations, state: DatabaseState, product: Product) -> Check:
    unsold = state.total - state.paid
    return Check(
        "no unit is unsold while a buyer wants one",
        not (unsold and observed.sold_out),
        f"{unsold:,} units unsold, {observed.sold_out:,} buyers without one",
    )


def _holds(observed: Observations, state: DatabaseState, product: Product) -> Check:
    acknowledged = [purchase.hold_id for purchase in observed.purchases]
    return _compare_ids("the ledger has exactly the acknowledged holds", acknowledged, state, "hold_placed")


def _orders(observed: Observations, state: DatabaseState, product: Product) -> Check:
    acknowledged = [purchase.order_id for purchase in observed.purchases if purchase.order_id is not None]
    return _compare_ids(
        "the ledger has exactly the acknowledged orders", acknowledged, state, "order_created"
    )


def _compare_ids(name: str, ids: Iterable[int], state: DatabaseState, kind: str) -> Check:
    """Each id was acknowledged once, and is in the ledger once in an event of this kind."""
    acknowledged = Counter(ids)
    recorded = Counter(event.order_id or event.hold_id or 0 for event in state.events(kind))
    lost, unknown = (acknowledged - recorded).total(), (recorded - acknowledged).total()
    what = kind.partition("_")[0] + "s"
    return Check(
        name,
        not lost and not unknown,
        f"{acknowledged.total():,} {what}"
        + (f", {lost:,} of them not in the ledger" if lost else "")
        + (f", {unknown:,} others in the ledger" if unknown else ""),
    )


def _payments(observed: Observations, state: DatabaseState, product: Product) -> Check:
    webhooks = observed.webhooks
    recorded = {key: (payment.status, payment.result) for key, payment in state.payments.items()}
    wrong = [
        f"{webhook.key}: acknowledged as {webhook.result}, recorded as {recorded.get(webhook.key)}"
        for webhook in webhooks
        if recorded.get(webhook.key)
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


def _money(observed: Observations, state: DatabaseState, product: Product) -> Check:
    kept = state.paid * PRICE
    due, refunded = (sum(amounts.values(), Decimal(0)) for amounts in (state.due, state.refunded))
    # A payment that was returned in part is in both.
    not_due = len(observed.owed ^ (state.due.keys() | state.refunded.keys()))
    wrong = sum(
        observed.refunds.get(key) != state.refunded.get(key)
        for key in observed.refunds.keys() | state.refunded.keys()
    )
    return Check(
        "captured = kept by paid orders + refunds due + refunded",
        state.captured == kept + due + refunded and not not_due and not wrong,
        f"{state.captured:,.2f} = {kept:,.2f} + {due:,.2f} + {refunded:,.2f} {CURRENCY}"
        + (f"; {not_due:,} payments are owed but not due, or due but not owed" if not_due else "")
        + (f"; of {wrong:,} payments the provider has returned another amount" if wrong else ""),
    )


def _repeats(observed: Observations, state: DatabaseState, product: Product) -> Check:
    return Check(
        "duplicate requests took effect once and got the same response",
        not observed.mismatches,
        _listed(f"{observed.duplicates:,} duplicate requests", observed.mismatches),
    )


def _responses(observed: Observations, state: DatabaseState, product: Product) -> Check:
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


def _audit(observed: Observations, state: DatabaseState, product: Product) -> Check:
    return Check(
        "audit() finds no violated invariant", not state.audit, _listed("the whole database", state.audit)
    )


def _not_early(observed: Observations, state: DatabaseState, product: Product) -> Check:
    assert product.starts_at is not None  # noqa: S101 - it applies to a sale with a start
    early = sum(event.at < product.starts_at for event in state.events("hold_placed"))
    refused = observed.count("sale_not_started")
    return Check(
        "early requests are refused, no hold is placed before the start",
        bool(refused) and not early,
        f"{refused:,} refused, {early:,} placed"
        + ("" if refused else "; no request came before the start: give --starts-in more time"),
    )


def _opened(observed: Observations, state: DatabaseState, product: Product) -> Check:
    assert product.starts_at is not None  # noqa: S101
    after = opening_delay(state, product.starts_at)
    return Check(
        f"the sale opens within {OPENING_TOLERANCE_SECONDS:g} s of its start",
        after is not None and abs(after) <= OPENING_TOLERANCE_SECONDS,
        "no hold was placed" if after is None else f"first hold after {after * 1000:,.0f} ms",
    )


def opening_delay(state: DatabaseState, starts_at: datetime) -> float | None:
    """Seconds from the start to the first hold, by the database's clock; None if there is no hold."""
    times = [event.at for event in state.events("hold_placed")]
    return (min(times) - starts_at).total_seconds() if times else None


def _limit_kept(observed: Observations, state: DatabaseState, product: Product) -> Check:
    assert product.limit is not None  # noqa: S101 - it applies to a product with a limit
    most = most_units(observed.purchases, state.ledger)
    wrong = [
        f"{account} had {units:,}"
        for account, units in sorted(most.items(), key=lambda found: -found[1])
        if units > product.limit
    ]
    return Check(
        "no buyer has more than the limit at any instant",
        not wrong,
        _listed(f"at most {max(most.values(), default=0):,} of {product.limit:,}", wrong),
    )


def _listed(summary: str, wrong: list[str]) -> str:
    more = f"; and {len(wrong) - MAX_LISTED:,} more" if len(wrong) > MAX_LISTED else ""
    return "; ".join([summary, *wrong[:MAX_LISTED]]) + more


_CHECKS: list[Callable[[Observations, DatabaseState, Product], Check]] = [
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
