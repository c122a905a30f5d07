"""Whether concurrent calls have the effect of a serial order."""

import itertools
from collections.abc import Collection, Iterator, Sequence

from proof.model import Model, Response
from proof.requests import LOCKED, NOT_SERIALIZABLE, Request

Exchange = tuple[Request, Response]


def explain(model: Model, calls: Sequence[Sequence[Exchange]], found: dict[str, dict]) -> Model | None:
    """The model after a serial order of these requests that has their responses and leaves `found`;
    None if there is no such order. The requests of one call stay in their order.

    A request whose row was locked or not serializable has no effect. A sweep and a purge skip what others
    have locked, and so does what ends or shortens the wait of webhooks: each may have done any part of its
    work, which `found` and its response show.
    """
    return _explain(model, [[*waits_ended(model, call), *call] for call in calls], found, set())


def waits_ended(model: Model, call: Sequence[Exchange]) -> list[Exchange]:
    """The waits that a call may end before it serves its requests."""
    keys = tuple(
        r.args[0]
        for r, _ in call
        if r.function == "apply_payment"
        and r.args[0] in model.payments
        and model.payments[r.args[0]].result == "stored"
    )
    return [(Request("end_waits", keys), {})] if keys else []


def _explain(
    model: Model, calls: Sequence[Sequence[Exchange]], found: dict[str, dict], visited: set[tuple]
) -> Model | None:
    """`visited` has the states that earlier attempts have reached in vain."""
    if not any(calls):
        return model if model.state() == found else None
    node = (*map(len, calls), repr(model))
    if node in visited:
        return None
    visited.add(node)
    for i, call in enumerate(calls):
        if not call:
            continue
        (request, observed), *later = call
        for after in outcomes(model, request, observed, found):
            explained = _explain(after, [*calls[:i], later, *calls[i + 1 :]], found, visited)
            if explained is not None:
                return explained
    return None


def one_by_one(model: Model, exchanges: Sequence[Exchange], found: dict[str, dict]) -> bool:
    """Whether these requests, each after the commit of the one before, have the responses of the contract and
    leave the state `found`."""
    after = model.copy()
    return (
        all(expected_of_scalar(after, request, observed) == observed for request, observed in exchanges)
        and after.state() == found
    )


def outcomes(model: Model, request: Request, observed: Response, found: dict[str, dict]) -> Iterator[Model]:
    """The models after the request in which it has this response."""
    if observed in (LOCKED, NOT_SERIALIZABLE):
        yield model
        return
    match request.function:
        case "end_waits":
            # Locked webhooks are skipped.
            for keys in subsets([key for key in request.args if key in model.ended_waits()]):
                after = model.copy()
                after.end_waits(*keys)
                yield after
        case "expire_due":
            if isinstance(observed, dict):
                yield from sweeps(model, found)
        case "purge":
            yield from purges(model, observed, found)
        case "begin_refunds" if isinstance(observed, dict):
            yield from begins(model, request, observed, found)
        case "forget_tests" if isinstance(observed, dict):
            yield from forgets(model, request, observed)
        case _:
            for skipped in what_it_skipped(model, request, found):
                after = model.copy()
                if expected(after, request, observed, **skipped) == observed and not overtakes(
                    after, request, found
                ):
                    yield after
            if rolled_back(model, request, observed) or observed == still_stored(model, request):
                yield model


def what_it_skipped(model: Model, request: Request, found: dict[str, dict]) -> Iterator[dict]:
    """The webhooks that the request may have skipped because they were locked, as an argument."""
    match request.function:
        case "change_settings":
            yield from ({"skipped": skipped} for skipped in waits_not_shortened(model, *request.args, found))
        case "create_order" | "apply_payment":
            # Those whose wait had ended and has not been ended.
            yield {}
            skipped = model.ended_waits().keys() & found["unswept"].keys()
            if skipped:
                yield {"skipped": skipped}
        case _:
            yield {}


def waits_not_shortened(model: Model, keep_ticks: int, found: dict[str, dict]) -> Iterator[tuple[str, ...]]:
    """The webhooks that a shorter inbox_keep may have skipped: those that another transaction was storing,
    applying or ending. Their deadline shows it, unless they are no longer stored or their key was reused."""
    unsure, skipped = [], []
    for key in model.shortened_by(keep_ticks):
        payment = model.payments[key]
        shortened = payment.received_at + keep_ticks
        deadline = model.now + found["ticks_left"][key] if key in found["ticks_left"] else None
        if deadline == payment.waits_until and shortened > model.now:
            skipped.append(key)
        elif deadline != shortened and key not in found["unswept"]:
            unsure.append(key)
    yield from ((*skipped, *some) for some in subsets(unsure))


def rolled_back(model: Model, request: Request, observed: Response) -> bool:
    """Whether a refusal of the scalar function may have rolled back the end of waits."""
    if request.function not in ("apply_payment", "record_refund") or not isinstance(observed, str):
        return False
    after = model.copy()
    return expected(after, request, observed) == observed and after.payments != model.payments


def still_stored(model: Model, request: Request) -> Response | None:
    """The response for a webhook whose wait has ended, while another transaction may still apply it, end its
    wait or shorten it: stored."""
    if request.function != "apply_payment" or request.args[0] not in model.ended_waits():
        return None
    payment = model.payments[request.args[0]]
    if payment.body != request.args[1:]:
        return "SA008"
    return {"order_id": payment.order_id, "status": None, "result": "stored", "replayed": True}


def sweeps(model: Model, found: dict[str, dict]) -> Iterator[Model]:
    """What a sweep can have marked. The tables do not show it for an order that has been paid since. What was
    purged had been marked."""
    marked, orders = found["marked"], found["orders"]
    overdue = [str(order) for order in model.overdue_orders()]
    paid = [order for order in overdue if order in orders and orders[order][0] == "paid"]
    ended_waits = model.ended_waits().keys()
    for ended in {(), tuple(ended_waits - found["unswept"].keys())}:
        for marked_before in subsets(paid):
            after = model.copy()
            after.mark_expired(
                h for h in after.expired_holds() if str(h) in marked or str(h) not in found["holds"]
            )
            after.mark_overdue(
                int(o) for o in overdue if o in marked or o in marked_before or o not in orders
            )
            after.end_waits(*ended)
            yield after


def purges(model: Model, observed: Response, found: dict[str, dict]) -> Iterator[Model]:
    """What a purge can have deleted: of the missing rows as many as its response counts. Another purge has
    deleted the rest."""
    if not isinstance(observed, dict):
        return
    orders, holds = model.finished_orders(), model.finished_holds()
    adjustments = list(model.adjustments)
    awaited = {refund.payment_key for refund in model.refunds.values() if model.awaited(refund)}
    for removed_orders, removed_holds, removed_adjustments, removed_awaited in itertools.product(
        itertools.combinations([o for o in orders if str(o) not in found["orders"]], observed["orders"]),
        itertools.combinations(
            [h for h in holds if str(h) not in found["holds"]], observed["holds"] - observed["orders"]
        ),
        itertools.combinations(
            [key for key in adjustments if str(key) not in found["adjustments"]], observed["operations"]
        ),
        subsets(sorted(awaited)),
    ):
        after = model.copy()
        skipped = {*orders, *holds, *adjustments, *awaited}.difference(
            removed_orders, removed_holds, removed_adjustments, removed_awaited
        )
        if after.purge(observed, skipped=skipped) == observed:
            yield after


def begins(model: Model, request: Request, observed: dict, found: dict[str, dict]) -> Iterator[Model]:
    """A payment that was due and not handed out was locked."""
    ended_waits = model.ended_waits().keys()
    for ended in {(), tuple(ended_waits - found["unswept"].keys())}:
        after = model.copy()
        after.end_waits(*ended)
        locked = set(after.to_refund(*request.args)) - observed.keys()
        skipped = (ended_waits - set(ended)) | locked
        if after.begin_refunds(*request.args, observed, skipped=skipped) == observed:
            yield after


def forgets(model: Model, request: Request, observed: dict) -> Iterator[Model]:
    """A product that was not forgotten was withdrawn, or locked."""
    in_use = [int(product_id) for product_id, forgotten in observed.items() if not forgotten]
    for withdrawn in subsets(in_use):
        after = model.copy()
        totals = {product_id: after.totals[product_id] for product_id in in_use if product_id in after.totals}
        if after.forget_tests(*request.args, observed, in_use=in_use) == observed:
            after.totals |= {p: total for p, total in totals.items() if p not in withdrawn}
            yield after


def subsets(items: Sequence) -> Iterator[tuple]:
    for size in range(len(items) + 1):
        yield from itertools.combinations(items, size)


def overtakes(model: Model, request: Request, found: dict[str, dict]) -> bool:
    """Whether an earlier webhook of the inbox would be stored after this one."""
    place = found["inbox"].get(request.args[0], 0) if request.function == "apply_payment" else 0
    return any(key not in model.payments for key, earlier in found["inbox"].items() if earlier < place)


def expected(model: Model, request: Request, observed: Response, **skipped: Collection) -> Response:
    """The response of the contract to this request. The model is then in the state after it."""
    return getattr(model, request.function)(*request.args, observed, **skipped)


def expected_of_scalar(model: Model, request: Request, observed: Response) -> Response:
    """The same for a scalar function: a refusal rolls back all that the call did."""
    payments = dict(model.payments)
    response = expected(model, request, observed)
    if isinstance(response, str):
        model.payments = payments
    return response
