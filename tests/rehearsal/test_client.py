"""The HTTP client of the buyers: retries where that is safe, and only there."""

import asyncio
from collections.abc import Callable

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from flashsale.errors import UserError
from flashsale.rehearsal import client as client_module
from flashsale.rehearsal.checkout import find_mismatch
from flashsale.rehearsal.client import NoResponse, open_client
from flashsale.rehearsal.observations import Observations, Operation, Response

RETRY = {"Retry-After": "0"}


def send(
    *responses: Callable[[], web.StreamResponse | None],
) -> tuple[Response | NoResponse, Observations, list[str]]:
    """Send a request to a server with these responses; the result, and the keys that the server received."""
    keys: list[str] = []
    remaining = list(responses)

    async def answer(request: web.Request) -> web.StreamResponse:
        keys.append(request.headers["Idempotency-Key"])
        made = remaining.pop(0)()
        if made is None:
            request.transport.close()
            return web.Response()
        return made

    async def main() -> tuple[Response | NoResponse, Observations, list[str]]:
        app = web.Application()
        app.router.add_post("/api/holds", answer)
        observed = Observations()
        async with (
            TestServer(app) as server,
            open_client(str(server.make_url("")).rstrip("/"), 2, observed, 1) as client,
        ):
            try:
                result = await client.request(
                    Operation.HOLD, "POST", "/api/holds", b"{}", {"Idempotency-Key": "k"}
                )
            except NoResponse as error:
                result = error
        return result, observed, keys

    return asyncio.run(main())


def busy() -> web.Response:
    return web.json_response({"code": "overloaded"}, status=503, headers=RETRY)


def good() -> web.Response:
    return web.json_response({"hold_id": 5}, status=201, headers={"Idempotency-Replayed": "true"})


def test_a_503_with_retry_after_is_retried_with_the_same_key():
    result, observed, keys = send(busy, busy, good)
    assert result == Response(201, {"hold_id": 5}, replayed=True)
    assert keys == ["k"] * 3
    assert [(call.status, call.code, call.retried) for call in observed.calls] == [
        (503, "overloaded", True), (503, "overloaded", True), (201, "", False),
    ]  # fmt: skip


def test_a_broken_connection_is_retried_with_the_same_key():
    result, observed, keys = send(lambda: None, good)
    assert (result.status, keys) == (201, ["k", "k"])
    assert [(call.status, call.retried) for call in observed.calls] == [(0, True), (201, False)]


@pytest.mark.parametrize("status", [409, 500, 503])
def test_other_responses_are_final(status):
    result, _, keys = send(lambda: web.json_response({"code": "x"}, status=status))
    assert (result.status, result.code, keys) == (status, "x", ["k"])


def test_a_body_that_is_not_a_json_object_is_ignored():
    result, _, _ = send(lambda: web.Response(text="[1]"))
    assert result == Response(200, {})
    result, _, _ = send(lambda: web.Response(text="<html>"))
    assert result == Response(200, {})


def test_retries_are_limited():
    result, observed, keys = send(*[busy] * client_module.MAX_ATTEMPTS)
    assert str(result) == f"hold: 503 overloaded, {client_module.MAX_ATTEMPTS} times"
    assert len(keys) == client_module.MAX_ATTEMPTS
    assert not observed.calls[-1].retried


def test_concurrency_is_limited():
    running, most = 0, 0
    full = asyncio.Event()

    async def answer(request: web.Request) -> web.StreamResponse:
        nonlocal running, most
        running += 1
        most = max(most, running)
        if running == 3:
            full.set()
        await full.wait()
        await asyncio.sleep(0.01)  # for a fourth, if it may come
        running -= 1
        return web.json_response({})

    async def main() -> None:
        app = web.Application()
        app.router.add_get("/", answer)
        async with (
            TestServer(app) as server,
            open_client(str(server.make_url("")).rstrip("/"), 3, Observations(), 1) as client,
        ):
            await asyncio.gather(*[client.request(Operation.VIEW, "GET", "/") for _ in range(12)])

    asyncio.run(main())
    assert most == 3


def test_more_connections_than_the_file_limit_are_refused(monkeypatch):
    monkeypatch.setattr(client_module.resource, "getrlimit", lambda _: (100, 100))

    async def main() -> None:
        async with open_client("http://127.0.0.1:1", 100, Observations(), 1):
            pass

    with pytest.raises(UserError, match="ulimit -Hn"):
        asyncio.run(main())


@pytest.mark.parametrize(
    ("responses", "mismatch"),
    [
        ([Response(201, {"hold_id": 1}), Response(201, {"hold_id": 1}, True)], False),
        ([Response(201, {"hold_id": 1}, True), Response(201, {"hold_id": 1}, True)], False),
        ([Response(201, {"hold_id": 1}), Response(201, {"hold_id": 2}, True)], True),
        ([Response(201, {"hold_id": 1}), Response(201, {"hold_id": 1})], True),
        ([Response(409, {"code": "insufficient_stock"}), Response(201, {"hold_id": 1})], False),
        ([Response(200, {"result": "applied"}), Response(200, {"result": "no_change"}, True)], True),
        ([Response(204, {}), Response(204, {})], False),
    ],
)
def test_responses_to_the_same_request_must_match(responses, mismatch):
    assert bool(find_mismatch(responses)) is mismatch
