"""An open-loop load generator: requests follow a schedule, whether or not earlier ones are answered.

wrk is a closed loop: it waits for a response before it sends the next request, so a server that slows down
gets fewer requests and is never overloaded. Here each request has a time at which it is due. It is sent on a
connection that is idle then, and its latency counts from the time at which it was due. A request that is due
while all connections wait is not sent, but counted. Without a schedule this is a closed loop, too. In both
cases every response is kept with its time, so that one run covers the time before, during and after an event.

bench/open_loop.py runs `python -m bench.load_generator FILE`. It reads one LoadPlan as JSON from standard
input, prints "connected" once all connections are open, begins at the next line, ends at the one after,
and writes a ResponseLog to FILE.
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

TICK_SECONDS = 0.001
"""seconds between two checks of the schedule"""
CONNECT_BATCH = 100
"""connections that are opened at a time: fewer than a listener's backlog"""
DRAIN_TIMEOUT_SECONDS = 10
"""seconds to wait for the last responses"""


@dataclass(frozen=True)
class LoadPlan:
    """What to send, and when.

    :param request: one request, sent again and again
    :param per_second: so many are due, evenly; None: each connection sends the next after each response
    """

    port: int
    request: str
    connections: int
    per_second: float | None = None


class ResponseLog:
    """Every response in the order of arrival: when it was due and when it came (time.time()), and its status.

    :param began: when the first request was due
    :param ended: when the last one was
    :param unsent: requests that were due while every connection waited
    :param waiting: connections that waited for a response at the end
    :param broken: connections that were lost, or got no response
    :param without_retry_after: responses 503 without this header
    :param late: seconds from when a request was due until it was sent, at most
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
    def read(cls, path: Path) -> "ResponseLog":
        seen = cls()
        with path.open("rb") as file:
            count, figures = json.loads(file.readline())
            for answers in (seen.due, seen.came, seen.status):
                answers.fromfile(file, count)
        vars(seen).update(figures)
        return seen


class _Connection(asyncio.Protocol):
    """Sends a request, and reads until the response is complete."""

    def __init__(self, load: "_Load") -> None:
        self._load = load
        self._read = b""
        self._due = 0.0
        self.is_last = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.WriteTransport, transport)  # uvloop's own kind does not inherit it

    def send(self, due: float) -> None:
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
            self._load.reconnect()
        else:
            self._load.seen.broken += 1


class _Load:
    """All connections, and the log of their responses."""

    def __init__(self, plan: LoadPlan) -> None:
        self.request = plan.request.encode()
        self.seen = ResponseLog()
        self._plan = plan
        self._idle: deque[_Connection] = deque()
        self._reconnecting: set[asyncio.Task[_Connection]] = set()
        self._running = False

    async def connect(self) -> None:
        for first in range(0, self._plan.connections, CONNECT_BATCH):
            count = min(CONNECT_BATCH, self._plan.connections - first)
            self._idle += await asyncio.gather(*(self._connect() for _ in range(count)))

    async def run(self, end: asyncio.Future[str]) -> None:
        self._running = True
        self.seen.began = time.time()
        if self._plan.per_second is None:
            while self._idle:
                self._idle.popleft().send(time.time())
            await end
        else:
            await self._keep_to_schedule(self._plan.per_second, end)
        self._running = False
        self.seen.ended = time.time()
        self.seen.waiting = self._waiting()
        while self._waiting() and time.time() < self.seen.ended + DRAIN_TIMEOUT_SECONDS:
            await asyncio.sleep(0.01)
        self.seen.broken += self._waiting()

    def _waiting(self) -> int:
        return self._plan.connections - len(self._idle) - self.seen.broken

    async def _keep_to_schedule(self, per_second: float, end: asyncio.Future[str]) -> None:
        seen, count = self.seen, 0
        while not end.done():
            now = time.time()
            while (due := seen.began + count / per_second) <= now:
                count += 1
                if self._idle:
                    self._idle.popleft().send(due)
                    seen.late = max(seen.late, now - due)
                else:
                    seen.unsent += 1
            await asyncio.sleep(TICK_SECONDS)

    def answered(self, connection: _Connection, due: float, answer: bytes, end: int) -> None:
        seen, now, status = self.seen, time.time(), int(answer[9:12])
        seen.due.append(due)
        seen.came.append(now)
        seen.status.append(status)
        if status == 503 and answer.find(b"retry-after: ", 0, end) < 0:
            seen.without_retry_after += 1
        if not connection.is_last:
            self._free(connection)

    def reconnect(self) -> None:
        """Replace a connection that the server has closed after its response."""
        task = asyncio.ensure_future(self._connect())
        self._reconnecting.add(task)
        task.add_done_callback(self._reconnected)

    async def _connect(self) -> _Connection:
        loop = asyncio.get_running_loop()
        return (await loop.create_connection(lambda: _Connection(self), "127.0.0.1", self._plan.port))[1]

    def _reconnected(self, task: "asyncio.Task[_Connection]") -> None:
        self._reconnecting.discard(task)
        self._free(task.result())

    def _free(self, connection: _Connection) -> None:
        if self._running and self._plan.per_second is None:
            connection.send(time.time())
        else:
            self._idle.append(connection)


async def _main(plan: LoadPlan, path: Path) -> None:
    loop = asyncio.get_running_loop()
    load = _Load(plan)
    await load.connect()
    print("connected", flush=True)
    await loop.run_in_executor(None, sys.stdin.readline)
    await load.run(loop.run_in_executor(None, sys.stdin.readline))
    load.seen.write(path)


if __name__ == "__main__":
    uvloop.run(_main(LoadPlan(**json.loads(sys.stdin.readline())), Path(sys.argv[1])))
