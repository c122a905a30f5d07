"""A load generator for what wrk cannot do: requests on a schedule, whether or not earlier ones are answered.

wrk waits for an answer before it asks again, so a server that slows down is asked less, and never overloaded.
Here a request is due at its time. It goes out on a connection that is idle then, and its latency counts from
when it was due. There are as many buyers as connections: what is due while all of them wait goes unsent, and
that is counted. Without a schedule it asks as wrk does. Either way it keeps every answer with its time, so
that one run tells of before, meanwhile and after.

`python -m bench.generator FILE` is run by bench/open_loop.py: it reads one Order as JSON from its standard
input, prints "connected" once all connections are open, begins at the next line, ends at the one after, and
leaves what it saw in FILE.
"""

import asyncio
import json
import sys
import time
from array import array
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import uvloop

TICK = 0.001
"""seconds between two looks at what is due"""
AT_ONCE = 100
"""connections being opened at a time: fewer than a listener's backlog"""
PATIENCE = 10
"""seconds that the last answers are waited for"""


@dataclass(frozen=True)
class Order:
    """What to ask, and how.

    :param request: one request, that is sent over and over
    :param per_second: so many are due, evenly; None: each connection asks again as soon as it is answered
    """

    port: int
    request: str
    connections: int
    per_second: float | None = None


class Seen:
    """Every answer, in the order of arrival: when it was due and when it came (time.time()), and its status.

    :param began: when the first request was due
    :param ended: when the last one was
    :param unsent: requests that were due while every connection waited
    :param waiting: connections that were waiting for an answer at the end
    :param broken: connections that were lost, or never answered
    :param without_retry_after: answers 503 that do not say when to come again
    :param late: seconds that a request went out after it was due, at most
    """

    def __init__(self) -> None:
        self.due = array("d")
        self.came = array("d")
        self.status = array("H")
        self.began = self.ended = self.late = 0.0
        self.unsent = self.waiting = self.broken = self.without_retry_after = 0

    def write(self, path: Path) -> None:
        figures = {name: value for name, value in vars(self).items() if not isinstance(value, array)}
        with path.open("wb") as file:
            file.write(json.dumps([len(self.due), figures]).encode() + b"\n")
            for answers in (self.due, self.came, self.status):
                answers.tofile(file)

    @classmethod
    def read(cls, path: Path) -> "Seen":
        seen = cls()
        with path.open("rb") as file:
            count, figures = json.loads(file.readline())
            for answers in (seen.due, seen.came, seen.status):
                answers.fromfile(file, count)
        vars(seen).update(figures)
        return seen


class _Connection(asyncio.Protocol):
    """One buyer: asks, and reads until the answer is complete."""

    def __init__(self, load: "_Load") -> None:
        self._load = load
        self._read = b""
        self._due = 0.0
        self.is_last = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.WriteTransport, transport)  # uvloop's own kind does not inherit it

    def ask(self, due: float) -> None:
        self._due = due
        self._transport.write(self._load.request)

    def data_received(self, data: bytes) -> None:
        if self._read:
            data = self._read + data
        end = data.find(b"\r\n\r\n")
        length = data.find(b"content-length: ", 0, end)
        if end < 0 or len(data) < end + 4 + int(data[length + 16 : data.find(b"\r", length)]):
            self._read = data
            return
        self._read = b""
        self.is_last = data.find(b"connection: close", 0, end) > 0
        self._load.answered(self, self._due, data, end)

    def connection_lost(self, exc: Exception | None) -> None:
        if self.is_last:
            self._load.come_back()
        else:
            self._load.seen.broken += 1


class _Load:
    """All connections, and what they see."""

    def __init__(self, order: Order) -> None:
        self.request = order.request.encode()
        self.seen = Seen()
        self._order = order
        self._idle: deque[_Connection] = deque()
        self._coming: set[asyncio.Task[_Connection]] = set()
        self._running = False

    async def connect(self) -> None:
        for first in range(0, self._order.connections, AT_ONCE):
            count = min(AT_ONCE, self._order.connections - first)
            self._idle += await asyncio.gather(*(self._connect() for _ in range(count)))

    async def run(self, end: asyncio.Future[str]) -> None:
        self._running = True
        self.seen.began = time.time()
        if self._order.per_second is None:
            while self._idle:
                self._idle.popleft().ask(time.time())
            await end
        else:
            await self._keep_to_schedule(self._order.per_second, end)
        self._running = False
        self.seen.ended = time.time()
        self.seen.waiting = self._waiting()
        while self._waiting() and time.time() < self.seen.ended + PATIENCE:
            await asyncio.sleep(0.01)
        self.seen.broken += self._waiting()

    def _waiting(self) -> int:
        return self._order.connections - len(self._idle) - self.seen.broken

    async def _keep_to_schedule(self, per_second: float, end: asyncio.Future[str]) -> None:
        seen, count = self.seen, 0
        while not end.done():
            now = time.time()
            while (due := seen.began + count / per_second) <= now:
                count += 1
                if self._idle:
                    self._idle.popleft().ask(due)
                    seen.late = max(seen.late, now - due)
                else:
                    seen.unsent += 1
            await asyncio.sleep(TICK)

    def answered(self, connection: _Connection, due: float, answer: bytes, end: int) -> None:
        seen, now, status = self.seen, time.time(), int(answer[9:12])
        seen.due.append(due)
        seen.came.append(now)
        seen.status.append(status)
        if status == 503 and answer.find(b"retry-after: ", 0, end) < 0:
            seen.without_retry_after += 1
        if not connection.is_last:
            self._free(connection)

    def come_back(self) -> None:
        """Somebody was turned away, connection and all: connect again."""
        task = asyncio.ensure_future(self._connect())
        self._coming.add(task)
        task.add_done_callback(self._come)

    async def _connect(self) -> _Connection:
        loop = asyncio.get_running_loop()
        return (await loop.create_connection(lambda: _Connection(self), "127.0.0.1", self._order.port))[1]

    def _come(self, task: "asyncio.Task[_Connection]") -> None:
        self._coming.discard(task)
        self._free(task.result())

    def _free(self, connection: _Connection) -> None:
        if self._running and self._order.per_second is None:
            connection.ask(time.time())
        else:
            self._idle.append(connection)


async def _main(order: Order, path: Path) -> None:
    loop = asyncio.get_running_loop()
    load = _Load(order)
    await load.connect()
    print("connected", flush=True)
    await loop.run_in_executor(None, sys.stdin.readline)
    await load.run(loop.run_in_executor(None, sys.stdin.readline))
    load.seen.write(path)


if __name__ == "__main__":
    uvloop.run(_main(Order(**json.loads(sys.stdin.readline())), Path(sys.argv[1])))
