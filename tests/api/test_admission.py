"""Beyond the limit requests wait unread, in order of arrival, and are rejected after a timeout."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest
import uvicorn

from api.context import CROSS_ORIGIN
from api.cross_origin import CrossOrigin
from api.server import admission
from api.server.http_protocol import uvicorn_settings

GET = b"GET /%d HTTP/1.1\r\nHost: shop\r\nOrigin: https://shop.example\r\n\r\n"


class Application:
    """An ASGI application that responds when a test allows it; `begun` are the requested paths, in order."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.changed = asyncio.Condition()
        self.may_respond: set[str] = set()

    async def __call__(self, scope, receive, send) -> None:
        if scope["type"] != "http":
            return
        path = scope["path"]
        async with self.changed:
            self.begun.append(path)
            self.changed.notify_all()
            await self.changed.wait_for(lambda: path in self.may_respond)
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
        await send({"type": "http.response.body", "body": b""})

    async def has_begun(self, count: int) -> None:
        async with self.changed:
            await self.changed.wait_for(lambda: len(self.begun) >= count)

    async def respond(self, *paths: str) -> None:
        async with self.changed:
            self.may_respond.update(paths)
            self.changed.notify_all()


class Clients:
    """Connections to a server, each with one request."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._writers: list[asyncio.StreamWriter] = []

    async def get(self, number: int) -> asyncio.StreamReader:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        self._writers.append(writer)
        writer.write(GET % number)
        return reader

    def disconnect(self, number: int) -> None:
        self._writers[number].transport.abort()

    async def close(self) -> None:
        for writer in self._writers:
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()


@asynccontextmanager
async def serving(
    application: Application, **app_state: object
) -> AsyncIterator[tuple[Clients, admission.AdmissionController]]:
    """The application behind the server's protocol; yields its clients and its admission controller."""
    settings = {**uvicorn_settings(), "loop": "asyncio", "lifespan": "off", "log_config": None}
    server = uvicorn.Server(uvicorn.Config(application, host="127.0.0.1", port=0, **settings))
    server.config.load()
    server.lifespan = server.config.lifespan_class(server.config)
    server.lifespan.state.update(app_state)
    await server.startup()
    clients = Clients(server.servers[0].sockets[0].getsockname()[1])
    state = server.server_state
    state.admission = admission.AdmissionController(state.tasks.__len__, asyncio.get_running_loop())
    try:
        yield clients, state.admission
    finally:
        await clients.close()
        await server.shutdown()


async def head_of(reader: asyncio.StreamReader) -> str:
    return (await reader.readuntil(b"\r\n\r\n")).decode()


async def wait_for(controller: admission.AdmissionController, count: int) -> None:
    while controller.waiting < count:
        await asyncio.sleep(0)


@pytest.fixture
def limit_of_two(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admission, "MAX_CONCURRENT_REQUESTS", 2)


@pytest.fixture
def long_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admission, "MAX_WAIT_SECONDS", 60)


def test_requests_beyond_the_limit_wait_and_are_admitted_in_order(limit_of_two, long_wait):
    async def scenario() -> None:
        application = Application()
        async with serving(application) as (clients, controller):
            readers = []
            for number in range(6):
                readers.append(await clients.get(number))
                await application.has_begun(min(number + 1, 2))
                await wait_for(controller, max(0, number - 1))
            assert application.begun == ["/0", "/1"]
            for number, reader in enumerate(readers):
                await application.respond(f"/{number}")
                assert (await head_of(reader)).startswith("HTTP/1.1 200 ")
                await application.has_begun(min(number + 3, 6))
                assert application.begun == [f"/{n}" for n in range(min(number + 3, 6))]

    asyncio.run(scenario())


def test_a_request_that_waits_too_long_is_rejected_and_may_be_retried(limit_of_two, monkeypatch):
    monkeypatch.setattr(admission, "MAX_WAIT_SECONDS", 0)

    async def scenario() -> None:
        application = Application()
        async with serving(application) as (clients, _):
            admitted = [await clients.get(number) for number in range(2)]
            await application.has_begun(2)
            waiting = await clients.get(2)
            head = await head_of(waiting)
            assert head.startswith("HTTP/1.1 503 ") and "retry-after: 1\r\n" in head
            assert "access-control-" not in head and "vary" not in head
            assert json.loads(await waiting.read())["code"] == "overloaded"
            await application.respond("/0", "/1")
            for reader in admitted:
                assert (await head_of(reader)).startswith("HTTP/1.1 200 ")
            assert application.begun == ["/0", "/1"]

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("origins", "allowed"),
    [(["https://shop.example"], "https://shop.example"), (["https://other.example"], None), (["*"], "*")],
)
def test_pages_of_other_origins_can_read_that_their_request_was_rejected(
    limit_of_two, monkeypatch, origins, allowed
):
    monkeypatch.setattr(admission, "MAX_WAIT_SECONDS", 0)

    async def scenario() -> None:
        application = Application()
        async with serving(application, **{CROSS_ORIGIN: CrossOrigin(origins)}) as (clients, _):
            for number in range(2):
                await clients.get(number)
            await application.has_begun(2)
            head = (await head_of(await clients.get(2))).lower()
            assert head.startswith("http/1.1 503 ")
            line = f"\r\naccess-control-allow-origin: {allowed}\r\n"
            assert (line in head) if allowed else ("access-control-" not in head)
            assert ("\r\nvary: origin\r\n" in head) == (origins != ["*"])
            await application.respond("/0", "/1")

    asyncio.run(scenario())


def test_a_client_that_disconnects_while_waiting_takes_no_place(limit_of_two, long_wait):
    async def scenario() -> None:
        application = Application()
        async with serving(application) as (clients, controller):
            for number in range(2):
                await clients.get(number)
            await application.has_begun(2)
            await clients.get(2)
            await wait_for(controller, 1)
            staying = await clients.get(3)
            await wait_for(controller, 2)
            clients.disconnect(2)
            await application.respond("/0", "/1", "/2", "/3")
            assert (await head_of(staying)).startswith("HTTP/1.1 200 ")

    asyncio.run(scenario())
