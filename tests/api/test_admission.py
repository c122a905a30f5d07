"""So many requests are inside at once; the others wait unread, in order, and are turned away before long."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest
import uvicorn

from api.server import admission
from api.server.http_protocol import uvicorn_settings

GET = b"GET /%d HTTP/1.1\r\nHost: shop\r\n\r\n"


class Application:
    """An ASGI application that answers when it is let to; `begun` are the paths asked for, in order."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.changed = asyncio.Condition()
        self.may_answer: set[str] = set()

    async def __call__(self, scope, receive, send) -> None:
        if scope["type"] != "http":
            return
        path = scope["path"]
        async with self.changed:
            self.begun.append(path)
            self.changed.notify_all()
            await self.changed.wait_for(lambda: path in self.may_answer)
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
        await send({"type": "http.response.body", "body": b""})

    async def has_begun(self, count: int) -> None:
        async with self.changed:
            await self.changed.wait_for(lambda: len(self.begun) >= count)

    async def answer(self, *paths: str) -> None:
        async with self.changed:
            self.may_answer.update(paths)
            self.changed.notify_all()


class Clients:
    """Connections to a server, each with one request."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._writers: list[asyncio.StreamWriter] = []

    async def ask(self, number: int) -> asyncio.StreamReader:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        self._writers.append(writer)
        writer.write(GET % number)
        return reader

    def leave(self, number: int) -> None:
        self._writers[number].transport.abort()

    async def close(self) -> None:
        for writer in self._writers:
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()


@asynccontextmanager
async def serving(application: Application) -> AsyncIterator[tuple[Clients, admission.Gate]]:
    """The application behind the server's own protocol; its clients, and the gate they come in by."""
    settings = {**uvicorn_settings(), "loop": "asyncio", "lifespan": "off", "log_config": None}
    server = uvicorn.Server(uvicorn.Config(application, host="127.0.0.1", port=0, **settings))
    server.config.load()
    server.lifespan = server.config.lifespan_class(server.config)
    await server.startup()
    clients = Clients(server.servers[0].sockets[0].getsockname()[1])
    state = server.server_state
    state.gate = admission.Gate(state.tasks.__len__, asyncio.get_running_loop())
    try:
        yield clients, state.gate
    finally:
        await clients.close()
        await server.shutdown()


async def head_of(reader: asyncio.StreamReader) -> str:
    return (await reader.readuntil(b"\r\n\r\n")).decode()


async def wait_outside(gate: admission.Gate, count: int) -> None:
    while gate.outside < count:
        await asyncio.sleep(0)


@pytest.fixture
def room_for_two(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admission, "MOST_AT_ONCE", 2)


@pytest.fixture
def long_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admission, "PATIENCE", 60)


def test_who_comes_to_a_full_server_waits_and_comes_in_in_order(room_for_two, long_patience):
    async def scenario() -> None:
        application = Application()
        async with serving(application) as (clients, gate):
            readers = []
            for number in range(6):
                readers.append(await clients.ask(number))
                await application.has_begun(min(number + 1, 2))
                await wait_outside(gate, max(0, number - 1))
            assert application.begun == ["/0", "/1"]
            for number, reader in enumerate(readers):
                await application.answer(f"/{number}")
                assert (await head_of(reader)).startswith("HTTP/1.1 200 ")
                await application.has_begun(min(number + 3, 6))
                assert application.begun == [f"/{n}" for n in range(min(number + 3, 6))]

    asyncio.run(scenario())


def test_who_waits_too_long_is_turned_away_and_may_try_again(room_for_two, monkeypatch):
    monkeypatch.setattr(admission, "PATIENCE", 0)

    async def scenario() -> None:
        application = Application()
        async with serving(application) as (clients, _):
            inside = [await clients.ask(number) for number in range(2)]
            await application.has_begun(2)
            outside = await clients.ask(2)
            head = await head_of(outside)
            assert head.startswith("HTTP/1.1 503 ") and "retry-after: 1\r\n" in head
            assert json.loads(await outside.read())["code"] == "overloaded"
            await application.answer("/0", "/1")
            for reader in inside:
                assert (await head_of(reader)).startswith("HTTP/1.1 200 ")
            assert application.begun == ["/0", "/1"]

    asyncio.run(scenario())


def test_who_leaves_while_it_waits_takes_nobodys_place(room_for_two, long_patience):
    async def scenario() -> None:
        application = Application()
        async with serving(application) as (clients, gate):
            for number in range(2):
                await clients.ask(number)
            await application.has_begun(2)
            await clients.ask(2)
            await wait_outside(gate, 1)
            staying = await clients.ask(3)
            await wait_outside(gate, 2)
            clients.leave(2)
            await application.answer("/0", "/1", "/2", "/3")
            assert (await head_of(staying)).startswith("HTTP/1.1 200 ")

    asyncio.run(scenario())
