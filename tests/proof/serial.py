"""Whether calls that were under way at once could have come one after the other."""

import itertools
from collections.abc import Iterator, Sequence

from tests.proof.model import Answer, Model
from tests.proof.requests import BUSY, NOT_SERIALIZABLE, Request

Told = tuple[Request, Answer]


def explain(model: Model, calls: Sequence[Sequence[Told]], found: dict[str, dict]) -> Model | None:
    """The model after an order of these requests that gives each the answer it has got, and leaves behind
    what the tables say; none if no order does. The requests of one call stay in their order, but a webhook
    that comes again may be told what its call has found, or what a later one of it has made of that.

    What was told to send it again, or was undone, has no part in it. A sweep leaves out what others have
    locked: it may have marked any of what is due, and `found` tells what.
    """
    return (
        _explain(model, calls, found)
        or _explain(model, [sorted(call, key=is_known_payment) for call in calls], found)
        or _explain(model, [sorted(call, key=is_known_payment, reverse=True) for call in calls], found)
    )


def is_known_payment(told: Told) -> bool:
    """Whether the answer says that the webhook's key was known."""
    request, seen = told
    if request.function != "apply_payment":
        return False
    return seen["replayed"] if isinstance(seen, dict) else seen == "SA008"


def _explain(model: Model, calls: Sequence[Sequence[Told]], found: dict[str, dict]) -> Model | None:
    if not any(calls):
        return model if model.state() == found else None
    for i, call in enumerate(calls):
        if not call:
            continue
        (request, seen), *later = call
        for after in outcomes(model, request, seen, found):
            explained = _explain(after, [*calls[:i], later, *calls[i + 1 :]], found)
            if explained is not None:
                return explained
    return None


def outcomes(model: Model, request: Request, seen: Answer, found: dict[str, dict]) -> Iterator[Model]:
    """The models in which the request has been answered so."""
    if seen in (BUSY, NOT_SERIALIZABLE):
        yield model
    elif request.function == "expire_due":
        if isinstance(seen, dict):
            yield from sweeps(model, found)
    else:
        after = model.copy()
        if answered(after, request, seen) == seen and not overtakes(after, request, found):
            yield after


def sweeps(model: Model, found: dict[str, dict]) -> Iterator[Model]:
    """What a sweep can have marked. Of an order that has been paid since, the tables do not tell."""
    overdue = [str(order) for order in model.overdue_orders()]
    paid = [order for order in overdue if found["orders"][order][0] == "paid"]
    for takes_inbox in {False, any(map(model.is_stale, model.payments.values()))}:
        for marked_before in subsets(paid):
            after = model.copy()
            after.mark_expired(hold for hold in after.lapsed_holds() if str(hold) in found["marked"])
            after.mark_overdue(int(o) for o in overdue if o in found["marked"] or o in marked_before)
            if takes_inbox:
                after.empty_inbox()
            yield after


def subsets(items: Sequence[str]) -> Iterator[tuple[str, ...]]:
    for size in range(len(items) + 1):
        yield from itertools.combinations(items, size)


def overtakes(model: Model, request: Request, found: dict[str, dict]) -> bool:
    """Whether a webhook in the inbox is there before one that has arrived earlier."""
    place = found["inbox"].get(request.args[0], 0) if request.function == "apply_payment" else 0
    return any(key not in model.payments for key, earlier in found["inbox"].items() if earlier < place)


def answered(model: Model, request: Request, seen: Answer) -> Answer:
    """What the contract says to this request; the model is then as it is after it."""
    return getattr(model, request.function)(*request.args, seen)
