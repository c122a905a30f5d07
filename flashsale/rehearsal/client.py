"""How buyers and the payment provider reach the server."""

import asyncio
import resource
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from random import Random
from typing import Any

import aiohttp
import msgspec

from flashsale.errors import Refusal
from flashsale.rehearsal.record import NO_ANSWER, Answer, Call, Kind, Seen

TIMEOUT = 15
"""seconds for one answer; the server's own limit is two"""
ATTEMPTS = 10
"""of one request, until it counts as unanswered"""
SPARE_FILES = 50
"""open files beside the connections"""
JSON = {"Content-Type": "application/json"}


class Unanswered(Exception):
    """The server never gave an answer to stay with, however often it was asked."""


class Client:
    """Asks, keeps the time, and asks again where an answer says that this is safe.

    :param url: of the server, without a slash at its end
    :param seen: where each call is noted
    """

    def __init__(self, session: aiohttp.ClientSession, url: str, at_once: int, seen: Seen, seed: int) -> None:
        self._session = session
        self._url = url
        self._at_once = asyncio.Semaphore(at_once)
        self._seen = seen
        self._random = Random(seed)  # noqa: S311
        self._began = time.perf_counter()

    def start_the_clock(self) -> None:
        self._began = time.perf_counter()

    def now(self) -> float:
        """Seconds since the sale began."""
        return time.perf_counter() - self._began

    async def ask(
        self,
        kind: Kind,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """The answer to a request that may be repeated: it reads, or carries a key, or releases.

        A 503 with Retry-After and a broken connection are no answers; the request goes out again.

        :raises Unanswered:
        """
        for attempt in range(1, ATTEMPTS + 1):
            async with self._at_once:
                began = self.now()
                answer, retry_after = await self._once(method, path, body, headers)
            again = retry_after is not None and attempt < ATTEMPTS
            self._seen.calls.append(Call(kind, began, self.now() - began, answer.status, answer.code, again))
            if retry_after is None:
                return answer
            if again:
                # Not all at the same moment, or they would meet again.
                await asyncio.sleep(retry_after * self._random.uniform(1, 1.5))
        raise Unanswered(f"{kind}: {answer}, {ATTEMPTS} times")

    async def _once(
        self, method: str, path: str, body: bytes | None, headers: Mapping[str, str] | None
    ) -> tuple[Answer, float | None]:
        """The answer, and in how many seconds to ask again if that is the thing to do."""
        try:
            async with self._session.request(
                method, self._url + path, data=body, headers=headers
            ) as response:
                raw = await response.read()
        except (aiohttp.ClientError, OSError, TimeoutError):
            return Answer(NO_ANSWER, {}), 0.2
        answer = Answer(
            response.status,
            _decode(raw),
            response.headers.get("Idempotency-Replayed") == "true",
            response.headers.get("X-Request-ID", ""),
        )
        retry_after = response.headers.get("Retry-After", "") if answer.status == 503 else ""
        return answer, float(retry_after) if retry_after.isascii() and retry_after.isdigit() else None


def _decode(raw: bytes) -> dict[str, Any]:
    try:
        decoded = msgspec.json.decode(raw) if raw else {}
    except msgspec.DecodeError:
        return {}
    return decoded if isinstance(decoded, dict) else {}


def _allow_files(count: int) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < count:
        raise Refusal(f"{count} connections are more than this machine allows: see ulimit -Hn")
    if soft != resource.RLIM_INFINITY and soft < count:
        resource.setrlimit(resource.RLIMIT_NOFILE, (count, hard))


@asynccontextmanager
async def opened(url: str, at_once: int, seen: Seen, seed: int) -> AsyncIterator[Client]:
    """A client of the server at `url` whose connections stay open.

    :raises Refusal: this machine does not let a process have as many
    """
    _allow_files(at_once + SPARE_FILES)
    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0),
        cookie_jar=aiohttp.DummyCookieJar(),
        timeout=aiohttp.ClientTimeout(TIMEOUT),
    ) as session:
        yield Client(session, url, at_once, seen, seed)
