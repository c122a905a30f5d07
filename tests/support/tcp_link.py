"""A TCP proxy whose network can be cut: then nothing answers, and nothing refuses."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import uvloop

Address = tuple[str, int]


class Link:
    """Forwards connections from one address to another.

    While it is cut, bytes and the ends of connections stay where they are, and new connections are accepted
    but lead nowhere; afterwards all go on, as after a cut that TCP has outlived.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, listen: Address, target: Address) -> None:
        self._loop = loop
        self._target = target
        self._is_up = asyncio.Event()
        self._is_up.set()
        self._relays: set[asyncio.Task[None]] = set()
        starting = asyncio.run_coroutine_threadsafe(asyncio.start_server(self._serve, *listen), loop)
        self._server = starting.result(10)

    def cut(self) -> None:
        self._loop.call_soon_threadsafe(self._is_up.clear)

    def heal(self) -> None:
        self._loop.call_soon_threadsafe(self._is_up.set)

    async def close(self) -> None:
        self._server.close()
        for relay in self._relays:
            relay.cancel()
        await asyncio.gather(*self._relays, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._relays.add(task)
        try:
            await self._is_up.wait()
            with suppress(OSError):
                server_reader, server_writer = await asyncio.open_connection(*self._target)
                try:
                    await asyncio.gather(self._pump(reader, server_writer), self._pump(server_reader, writer))
                finally:
                    server_writer.close()
        finally:
            writer.close()
            self._relays.discard(task)

    async def _pump(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        """Forward what one side sends, and that it has ended; the other side then ends, too."""
        with suppress(OSError):
            while True:
                data = await source.read(65536)
                await self._is_up.wait()
                if not data:
                    break
                sink.write(data)
                await sink.drain()
        sink.close()


class Links:
    """Links that share a thread."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._links: list[Link] = []

    def open(self, listen: Address, target: Address) -> Link:
        link = Link(self._loop, listen, target)
        self._links.append(link)
        return link

    async def close(self) -> None:
        for link in self._links:
            await link.close()


@contextmanager
def links() -> Iterator[Links]:
    loop = uvloop.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    opened = Links(loop)
    try:
        yield opened
    finally:
        asyncio.run_coroutine_threadsafe(opened.close(), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()
