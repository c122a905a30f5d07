"""What must hold after a sale, of what the buyers were told and of what the database says."""

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from flashsale.rehearsal.record import NO_ANSWER, Outcome, Seen, Word
from flashsale.rehearsal.shop import Books

SHOWN = 3
"""of the things that are wrong, so many are told"""


@dataclass(frozen=True)
class Check:
    """Something that must hold, whether it did, and by which numbers."""

    name: str
    held: bool
    detail: str


def check(seen: Seen, books: Books, stock: int) -> list[Check]:
    """Every check, in the order in which a shop would ask."""
    return [judge(seen, books, stock) for judge in _CHECKS]


def _units_add_up(seen: Seen, books: Books, stock: int) -> Check:
    parts = (books.paid, books.awaiting, books.held, books.available)
    told, over_http = "", seen.available_at_end
    if over_http != books.available:
        told = f"; over HTTP: {'no answer' if over_http is None else f'{over_http:,} available'}"
    return Check(
        "sold + awaiting payment + held + available = stock",
        sum(parts) == stock == books.total and not told,
        f"{' + '.join(f'{part:,}' for part in parts)} = {sum(parts):,} of {stock:,}{told}",
    )


def _nothing_oversold(seen: Seen, books: Books, stock: int) -> Check:
    bought = [purchase for purchase in seen.purchases if purchase.outcome is Outcome.BOUGHT]
    twice = sum(count > 1 for count in Counter(purchase.buyer.number for purchase in bought).values())
    return Check(
        "every unit sold once, to one buyer",
        len(bought) == books.paid <= stock and not twice,
        f"{len(bought):,} buyers were told that they have one, {books.paid:,} units are sold"
        + (f", {twice:,} buyers have two" if twice else ""),
    )


def _nothing_undersold(seen: Seen, books: Books, stock: int) -> Check:
    wanted = (
        f"{seen.sold_out:,} buyers still wanted one" if seen.sold_out else "nobody was left who wanted one"
    )
    unsold = books.total - books.paid
    return Check(
        "nothing unsold while somebody wanted it",
        not (unsold and seen.sold_out),
        f"{unsold:,} unsold, {wanted}",
    )


def _holds(seen: Seen, books: Books, stock: int) -> Check:
    told = [purchase.hold_id for purchase in seen.purchases]
    return _same("every hold that was promised is in the ledger, and no other", told, books, "hold_placed")


def _orders(seen: Seen, books: Books, stock: int) -> Check:
    told = [purchase.order_id for purchase in seen.purchases if purchase.order_id is not None]
    return _same("every order that was promised is in the ledger, and no other", told, books, "order_created")


def _same(name: str, told: Iterable[int], books: Books, kind: str) -> Check:
    """Each id was told once and is in the ledger once under an event's kind."""
    told, written = Counter(told), Counter(books.events[kind])
    lost, unknown = (told - written).total(), (written - told).total()
    what = kind.partition("_")[0] + "s"
    return Check(
        name,
        not lost and not unknown,
        f"{told.total():,} {what}"
        + (f", {lost:,} of them not in the ledger" if lost else "")
        + (f", {unknown:,} in the ledger that no buyer was told of" if unknown else ""),
    )


def _payments(seen: Seen, books: Books, stock: int) -> Check:
    words = seen.words
    wrong = [
        f"{word.key}: told {word.result}, recorded {books.payments.get(word.key)}"
        for word in words
        if books.payments.get(word.key) not in _right(word, stray=word in seen.strays)
    ]
    unknown = books.payments.keys() - {word.key for word in words}
    wrong += [f"{key}: sent by nobody here" for key in sorted(unknown)]
    return Check(
        "every webhook is recorded as it was answered", not wrong, _listed(f"{len(words):,} webhooks", wrong)
    )


def _right(word: Word, *, stray: bool) -> set[tuple[str, str]]:
    """What may be recorded of a webhook. One that was stored is settled by its order."""
    if word.result != "stored":
        return {(word.status, word.result)}
    return {(word.status, result) for result in (["stored", "amount_mismatch"] if stray else ["applied"])}


def _money(seen: Seen, books: Books, stock: int) -> Check:
    captured = [
        key for key, (status, result) in books.payments.items() if status == "success" and result != "stored"
    ]
    told = {word.key for word in seen.words if word.result in ("refund_due", "amount_mismatch")}
    wrong = len(told ^ books.refunds)
    return Check(
        "captured payments = units sold + refunds due",
        len(captured) == books.paid + len(books.refunds) and not wrong,
        f"{len(captured):,} = {books.paid:,} + {len(books.refunds):,}"
        + (f"; {wrong:,} refunds were told of and are not due, or the other way round" if wrong else ""),
    )


def _repeats(seen: Seen, books: Books, stock: int) -> Check:
    return Check(
        "requests sent twice took effect once and got the same answer",
        not seen.contradictions,
        _listed(f"{seen.repeated:,} sent twice or more", seen.contradictions),
    )


def _answers(seen: Seen, books: Books, stock: int) -> Check:
    again = Counter(
        "no answer" if call.status == NO_ANSWER else call.code or str(call.status)
        for call in seen.calls
        if call.sent_again
    )
    broken = Counter(f"{call.status} {call.code}" for call in seen.calls if call.status >= 500)
    broken -= Counter(f"{call.status} {call.code}" for call in seen.calls if call.sent_again)
    wrong = [f"{status}: {count:,} times" for status, count in broken.items()] + seen.faults
    retried = ", ".join(f"{count:,} {code}" for code, count in again.items())
    return Check(
        "every request got a proper answer, at the latest when asked again",
        not wrong,
        _listed(f"{len(seen.calls):,} requests, sent again: {retried or 'none'}", wrong),
    )


def _audit(seen: Seen, books: Books, stock: int) -> Check:
    return Check("audit() finds nothing", not books.audit, _listed("the whole database", books.audit))


def _listed(said: str, wrong: list[str]) -> str:
    more = f"; and {len(wrong) - SHOWN:,} more" if len(wrong) > SHOWN else ""
    return "; ".join([said, *wrong[:SHOWN]]) + more


_CHECKS: list[Callable[[Seen, Books, int], Check]] = [
    _units_add_up,
    _nothing_oversold,
    _nothing_undersold,
    _holds,
    _orders,
    _payments,
    _money,
    _repeats,
    _answers,
    _audit,
]
