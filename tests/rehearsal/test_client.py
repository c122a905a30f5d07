"""How buyers ask: again where an answer says that this is safe, and never else."""

import asyncio
from collections.abc import Callable

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from flashsale.errors import Refusal
from flashsale.rehearsal import client as client_module
from flashsale.rehearsal.client import Unanswered, opened
from flashsale.rehearsal.record import Answer, Kind, Seen
from flashsale.rehearsal.sale import contradiction_of

AGAIN = {"Retry-After": "0"}


def asked(*answers: Callable[[], web.StreamResponse]) -> tuple[Answer | Unanswered, Seen, list[str]]:
    """What becomes of one request to a server that answers so, one after the other, and the keys it saw."""
    keys: list[str] = []
    left = list(answers)

    async def answer(request: web.Request) -> web.StreamResponse:
        keys.append(request.headers["Idempotency-Key"])
        made = left.pop(0)()
        if made is None:
            request.transport.close()
            return web.Response()
        return made

    async def main() -> tuple[Answer | Unanswered, Seen, list[str]]:
        app = web.Application()
        app.router.add_post("/api/holds", answer)
        seen = Seen()
        async with TestServer(app) as server, opened(str(server.make_url("")).rstrip("/"), 2, seen, 1) as ask:
            try:
                told = await ask.ask(Kind.HOLD, "POST", "/api/holds", b"{}", {"Idempotency-Key": "k"})
            except Unanswered as error:
                told = error
        return told, seen, keys

    return asyncio.run(main())


def busy() -> web.Response:
    return web.json_response({"code": "overloaded"}, status=503, headers=AGAIN)


def good() -> web.Response:
    return web.json_response({"hold_id": 5}, status=201, headers={"Idempotency-Replayed": "true"})


def test_a_503_with_retry_after_is_asked_again_with_its_key():
    told, seen, keys = asked(busy, busy, good)
    assert told == Answer(201, {"hold_id": 5}, replayed=True)
    assert keys == ["k"] * 3
    assert [(call.status, call.code, call.sent_again) for call in seen.calls] == [
        (503, "overloaded", True), (503, "overloaded", True), (201, "", False),
    ]  # fmt: skip


def test_a_broken_connection_is_asked_again_with_its_key():
    told, seen, keys = asked(lambda: None, good)
    assert (told.status, keys) == (201, ["k", "k"])
    assert [(call.status, call.sent_again) for call in seen.calls] == [(0, True), (201, False)]


@pytest.mark.parametrize("status", [409, 500, 503])
def test_any_other_answer_stands(status):
    told, _, keys = asked(lambda: web.json_response({"code": "x"}, status=status))
    assert (told.status, told.code, keys) == (status, "x", ["k"])


def test_what_is_no_json_object_is_no_body():
    told, _, _ = asked(lambda: web.Response(text="[1]"))
    assert told == Answer(200, {})
    told, _, _ = asked(lambda: web.Response(text="<html>"))
    assert told == Answer(200, {})


def test_patience_ends():
    told, seen, keys = asked(*[busy] * client_module.ATTEMPTS)
    assert str(told) == f"hold: 503 overloaded, {client_module.ATTEMPTS} times"
    assert len(keys) == client_module.ATTEMPTS
    assert not seen.calls[-1].sent_again


def test_no_more_at_once_than_asked_for():
    under_way, most = 0, 0

    async def answer(request: web.Request) -> web.StreamResponse:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        await asyncio.sleep(0.01)
        under_way -= 1
        return web.json_response({})

    async def main() -> None:
        app = web.Application()
        app.router.add_get("/", answer)
        async with (
            TestServer(app) as server,
            opened(str(server.make_url("")).rstrip("/"), 3, Seen(), 1) as ask,
        ):
            await asyncio.gather(*[ask.ask(Kind.LOOK, "GET", "/") for _ in range(12)])

    asyncio.run(main())
    assert most == 3


def test_more_connections_than_the_machine_allows_are_refused(monkeypatch):
    monkeypatch.setattr(client_module.resource, "getrlimit", lambda _: (100, 100))

    async def main() -> None:
        async with opened("http://127.0.0.1:1", 100, Seen(), 1):
            pass

    with pytest.raises(Refusal, match="ulimit -Hn"):
        asyncio.run(main())


@pytest.mark.parametrize(
    ("answers", "contradiction"),
    [
        ([Answer(201, {"hold_id": 1}), Answer(201, {"hold_id": 1}, True)], False),
        ([Answer(201, {"hold_id": 1}, True), Answer(201, {"hold_id": 1}, True)], False),
        ([Answer(201, {"hold_id": 1}), Answer(201, {"hold_id": 2}, True)], True),
        ([Answer(201, {"hold_id": 1}), Answer(201, {"hold_id": 1})], True),
        ([Answer(409, {"code": "insufficient_stock"}), Answer(201, {"hold_id": 1})], False),
        ([Answer(200, {"result": "applied"}), Answer(200, {"result": "no_change"}, True)], True),
        ([Answer(204, {}), Answer(204, {})], False),
    ],
)
def test_answers_to_one_request_must_agree(answers, contradiction):
    assert bool(contradiction_of(answers)) is contradiction
