"""What each buyer has, from the ledger: units that are held, awaiting payment or paid, at every instant.

The ledger has the instant of each event, but what lapses does so at an instant that was given to the buyer,
and its event is written later, by the sweep. So a hold counts from its event to its own end, or to that
of its order.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import NamedTuple

from flashsale.rehearsal.database_state import Event
from flashsale.rehearsal.observations import Purchase


class _Change(NamedTuple):
    """A change of what a buyer has. At one instant what ends comes before what begins."""

    at: datetime
    begins: bool
    units: int


def most_units(purchases: Iterable[Purchase], ledger: Sequence[Event]) -> dict[str, int]:
    """By account: the most units that it had at any instant.

    :param purchases: whose hold it is, and when the server said that it or its order lapses
    :param ledger: the events of the product, in order
    """
    events: defaultdict[int, list[Event]] = defaultdict(list)
    for event in ledger:
        if event.hold_id is not None:
            events[event.hold_id].append(event)
    changes: defaultdict[str, list[_Change]] = defaultdict(list)
    for purchase in purchases:
        changes[purchase.buyer.account] += _changes(purchase, events[purchase.hold_id])
    return {account: _most(found) for account, found in changes.items()}


def _most(changes: Sequence[_Change]) -> int:
    most = units = 0
    for change in sorted(changes):
        units += change.units
        most = max(most, units)
    return most


def _changes(purchase: Purchase, events: Iterable[Event]) -> list[_Change]:
    changes: list[_Change] = []
    lapses_at: datetime | None = None
    counts = False
    for event in events:
        match event.kind:
            case "hold_placed":
                counts, lapses_at = True, purchase.expires_at
                changes.append(_Change(event.at, True, purchase.qty))
            case "order_created":
                lapses_at = purchase.payment_due_at
            case "order_paid":
                if event.available_delta < 0:  # too late: the units were taken again
                    changes.append(_Change(event.at, True, purchase.qty))
                counts, lapses_at = True, None
            case "hold_released" | "hold_expired" | "order_cancelled" if counts:
                counts = False
                at = event.at if lapses_at is None else min(event.at, lapses_at)
                changes.append(_Change(at, False, -purchase.qty))
    if counts and lapses_at is not None:
        changes.append(_Change(lapses_at, False, -purchase.qty))
    return changes
