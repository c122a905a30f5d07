"""Whether calls that were under way at once could have come one after the other."""

import itertools
from collections.abc import Iterator, Sequence

from tests.proof.model import Answer, Model
from tests.proof.requests import BUSY, NOT_SERIALIZABLE, Request

Told = tuple[Request, Answer]


def explain(model: Model, calls: Sequence[Sequence[Told]], found: dict[str, dict]) -> Model | None:
    """The model after an order of these requests that gives each the answer it has got, and leaves behind
    what the tables say; none if no order does. The requests of one call stay in their order.

    What was told to send it again, or was undone, has no part in it. A sweep leaves out what others have
    locked: it may have marked any of what is due, and `found` tells what.
    """
    return _explain(model, [[*waits_ended(model, call), *call] for call in calls], found)


def waits_ended(model: Model, call: Sequence[Told]) -> list[Told]:
    """What a call does before it serves its requests."""
    over = model.over()
    keys = tuple(r.args[0] for r, _ in call if r.function == "apply_payment" and r.args[0] in over)
    return [(Request("end_waits", keys), {})] if keys else []


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
    elif request.function == "end_waits":
        # Not of webhooks that others have locked.
        for keys in subsets(request.args):
            after = model.copy()
            after.end_waits(*keys)
            yield after
    elif request.function == "expire_due":
        if isinstance(seen, dict):
            yield from sweeps(model, found)
    else:
        after = model.copy()
        if answered(after, request, seen) == seen and not overtakes(after, request, found):
            yield after
        if seen == undecided(model, request):
            yield model


def undecided(model: Model, request: Request) -> Answer | None:
    """What a webhook's key is told whose wait is over while another transaction may yet apply it, or ends its
    wait: that it is stored."""
    if request.function != "apply_payment" or request.args[0] not in model.over():
        return None
    said = model.payments[request.args[0]]
    if said.body != request.args[1:]:
        return "SA008"
    return {"order_id": said.order_id, "status": None, "result": "stored", "replayed": True}


def sweeps(model: Model, found: dict[str, dict]) -> Iterator[Model]:
    """What a sweep can have marked. Of an order that has been paid since, the tables do not tell."""
    overdue = [str(order) for order in model.overdue_orders()]
    paid = [order for order in overdue if found["orders"][order][0] == "paid"]
    for takes_inbox in {False, bool(model.over())}:
        for marked_before in subsets(paid):
            after = model.copy()
            after.mark_expired(hold for hold in after.lapsed_holds() if str(hold) in found["marked"])
            after.mark_overdue(int(o) for o in overdue if o in found["marked"] or o in marked_before)
            if takes_inbox:
                after.end_waits(*after.over())
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
