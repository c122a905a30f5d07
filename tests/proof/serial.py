"""Whether calls that were under way at once could have come one after the other."""

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
    if not any(calls):
        return model if model.state() == found else None
    for i, call in enumerate(calls):
        if not call:
            continue
        (request, seen), *later = call
        for after in outcomes(model, request, seen, found):
            explained = explain(after, [*calls[:i], later, *calls[i + 1 :]], found)
            if explained is not None:
                return explained
    return None


def outcomes(model: Model, request: Request, seen: Answer, found: dict[str, dict]) -> Iterator[Model]:
    """The models in which the request has been answered so."""
    if seen in (BUSY, NOT_SERIALIZABLE):
        yield model
    elif request.function == "expire_due":
        if isinstance(seen, dict):
            for takes_inbox in {False, any(map(model.is_stale, model.payments.values()))}:
                after = model.copy()
                after.mark_expired(hold for hold in after.lapsed_holds() if str(hold) in found["marked"])
                after.mark_overdue(order for order in after.overdue_orders() if str(order) in found["marked"])
                if takes_inbox:
                    after.empty_inbox()
                yield after
    else:
        after = model.copy()
        if answered(after, request, seen) == seen:
            yield after


def answered(model: Model, request: Request, seen: Answer) -> Answer:
    """What the contract says to this request; the model is then as it is after it."""
    return getattr(model, request.function)(*request.args, seen)
