"""Whether calls that were under way at once could have come one after the other."""

import itertools
from collections.abc import Collection, Iterator, Sequence

from proof.model import Answer, Model
from proof.requests import BUSY, NOT_SERIALIZABLE, Request

Told = tuple[Request, Answer]


def explain(model: Model, calls: Sequence[Sequence[Told]], found: dict[str, dict]) -> Model | None:
    """The model after an order of these requests that gives each the answer it has got, and leaves behind
    what the tables say; none if no order does. The requests of one call stay in their order.

    What was told to send it again, or was undone, has no part in it. A sweep and a purge leave out what
    others have locked, and so does what ends or shortens the wait of webhooks: each may have done any part of
    its work, and `found` and its answer tell which.
    """
    return _explain(model, [[*waits_ended(model, call), *call] for call in calls], found, set())


def waits_ended(model: Model, call: Sequence[Told]) -> list[Told]:
    """What a call does before it serves its requests. Which waits are over then depends on what came
    before."""
    keys = tuple(
        r.args[0]
        for r, _ in call
        if r.function == "apply_payment"
        and r.args[0] in model.payments
        and model.payments[r.args[0]].result == "stored"
    )
    return [(Request("end_waits", keys), {})] if keys else []


def _explain(
    model: Model, calls: Sequence[Sequence[Told]], found: dict[str, dict], tried: set[tuple]
) -> Model | None:
    """`tried` is where earlier attempts have been, in vain."""
    if not any(calls):
        return model if model.state() == found else None
    place = (*map(len, calls), repr(model))
    if place in tried:
        return None
    tried.add(place)
    for i, call in enumerate(calls):
        if not call:
            continue
        (request, seen), *later = call
        for after in outcomes(model, request, seen, found):
            explained = _explain(after, [*calls[:i], later, *calls[i + 1 :]], found, tried)
            if explained is not None:
                return explained
    return None


def one_by_one(model: Model, told: Sequence[Told], found: dict[str, dict]) -> bool:
    """Whether these requests, each after the other's commit, were answered as the contract says, and left
    behind what it says. Nothing is locked then."""
    after = model.copy()
    return (
        all(answered_alone(after, request, seen) == seen for request, seen in told) and after.state() == found
    )


def outcomes(model: Model, request: Request, seen: Answer, found: dict[str, dict]) -> Iterator[Model]:
    """The models in which the request has been answered so."""
    if seen in (BUSY, NOT_SERIALIZABLE):
        yield model
        return
    match request.function:
        case "end_waits":
            # Not of webhooks that others have locked.
            for keys in subsets([key for key in request.args if key in model.over()]):
                after = model.copy()
                after.end_waits(*keys)
                yield after
        case "expire_due":
            if isinstance(seen, dict):
                yield from sweeps(model, found)
        case "purge":
            yield from purges(model, seen, found)
        case _:
            for left in what_it_left(model, request, found):
                after = model.copy()
                if answered(after, request, seen, **left) == seen and not overtakes(after, request, found):
                    yield after
            if undone(model, request, seen) or seen == undecided(model, request):
                yield model


def what_it_left(model: Model, request: Request, found: dict[str, dict]) -> Iterator[dict]:
    """Which webhooks the request may have left alone, since others had them locked, as an argument."""
    match request.function:
        case "change_settings":
            yield from ({"left": left} for left in waits_left_long(model, *request.args, found))
        case "create_order" | "apply_payment":
            # Whose wait was over all along, and has not been ended.
            yield {}
            left = model.over().keys() & found["unswept"].keys()
            if left:
                yield {"left": left}
        case _:
            yield {}


def waits_left_long(model: Model, keep_ticks: int, found: dict[str, dict]) -> Iterator[tuple[str, ...]]:
    """Which webhooks a shorter inbox_keep may have left alone: those that another transaction was storing,
    applying or ending. Where they stand now tells, unless they have left the inbox, or their key was free
    and is used again."""
    unsure, left = [], []
    for key in model.shortened_by(keep_ticks):
        said = model.payments[key]
        shortened = said.received_at + keep_ticks
        now_until = model.now + found["ticks_left"][key] if key in found["ticks_left"] else None
        if now_until == said.waits_until and shortened > model.now:
            left.append(key)
        elif now_until != shortened and key not in found["unswept"]:
            unsure.append(key)
    yield from ((*left, *some) for some in subsets(unsure))


def undone(model: Model, request: Request, seen: Answer) -> bool:
    """Whether a refusal of the scalar form may have undone what it did first: to end waits."""
    if request.function != "apply_payment" or not isinstance(seen, str):
        return False
    after = model.copy()
    return answered(after, request, seen) == seen and after.payments != model.payments


def undecided(model: Model, request: Request) -> Answer | None:
    """What a webhook's key is told whose wait is over while another transaction may yet apply it, ends its
    wait or shortens it: that it is stored."""
    if request.function != "apply_payment" or request.args[0] not in model.over():
        return None
    said = model.payments[request.args[0]]
    if said.body != request.args[1:]:
        return "SA008"
    return {"order_id": said.order_id, "status": None, "result": "stored", "replayed": True}


def sweeps(model: Model, found: dict[str, dict]) -> Iterator[Model]:
    """What a sweep can have marked. Of an order that has been paid since, the tables do not tell. What was
    purged has been marked."""
    marked, orders = found["marked"], found["orders"]
    overdue = [str(order) for order in model.overdue_orders()]
    paid = [order for order in overdue if order in orders and orders[order][0] == "paid"]
    over = model.over().keys()
    for ended in {(), tuple(over - found["unswept"].keys())}:
        for marked_before in subsets(paid):
            after = model.copy()
            after.mark_expired(
                h for h in after.lapsed_holds() if str(h) in marked or str(h) not in found["holds"]
            )
            after.mark_overdue(
                int(o) for o in overdue if o in marked or o in marked_before or o not in orders
            )
            after.end_waits(*ended)
            yield after


def purges(model: Model, seen: Answer, found: dict[str, dict]) -> Iterator[Model]:
    """What a purge can have removed: of what is not there any more as much as its answer counts. The rest is
    another purge's."""
    if not isinstance(seen, dict):
        return
    orders, holds = model.finished_orders(), model.finished_holds()
    for removed_orders, removed_holds in itertools.product(
        itertools.combinations([o for o in orders if str(o) not in found["orders"]], seen["orders"]),
        itertools.combinations(
            [h for h in holds if str(h) not in found["holds"]], seen["holds"] - seen["orders"]
        ),
    ):
        after = model.copy()
        if after.purge(seen, left={*orders, *holds}.difference(removed_orders, removed_holds)) == seen:
            yield after


def subsets(items: Sequence) -> Iterator[tuple]:
    for size in range(len(items) + 1):
        yield from itertools.combinations(items, size)


def overtakes(model: Model, request: Request, found: dict[str, dict]) -> bool:
    """Whether a webhook in the inbox is there before one that has arrived earlier."""
    place = found["inbox"].get(request.args[0], 0) if request.function == "apply_payment" else 0
    return any(key not in model.payments for key, earlier in found["inbox"].items() if earlier < place)


def answered(model: Model, request: Request, seen: Answer, **left: Collection) -> Answer:
    """What the contract says to this request; the model is then as it is after it."""
    return getattr(model, request.function)(*request.args, seen, **left)


def answered_alone(model: Model, request: Request, seen: Answer) -> Answer:
    """The same of a call of the scalar form: a refusal undoes all that the call has done."""
    payments = dict(model.payments)
    answer = answered(model, request, seen)
    if isinstance(answer, str):
        model.payments = payments
    return answer
