"""The HTTP client of the buyers and of the payment provider."""

import asyncio
import copy
import resource
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from random import Random
from typing import Any

import aiohttp
import msgspec

from flashsale.errors import UserError
from flashsale.rehearsal.observations import NO_RESPONSE, Call, Observations, Operation, Response

TIMEOUT_SECONDS = 15
"""seconds for one response; the server's own limit is two"""
MAX_ATTEMPTS = 10
SPARE_FILES = 50
"""open files other than connections"""
JSON = {"Content-Type": "application/json"}


class NoResponse(Exception):
    """No attempt of a request got a final response."""


class Client:
    """Sends requests, records their times, and retries where that is safe.

    :param url: of the server, without a trailing slash
    :param observed: records each call
    """

    def __init__(
        self, session: aiohttp.ClientSession, url: str, concurrency: int, observed: Observations, seed: int
    ) -> None:
        self._session = session
        self._url = url
        self._slots = asyncio.Semaphore(concurrency)
        self._seen = observed
        self._random = Random(seed)  # noqa: S311
        self._began = time.perf_counter()

    def with_concurrency(self, concurrency: int) -> "Client":
        """A client with the same clock and a limit of its own, for other senders."""
        other = copy.copy(self)
        other._slots = asyncio.Semaphore(concurrency)
        return other

    def start_clock(self) -> None:
        """Let now() count from this moment."""
        self._began = time.perf_counter()

    def now(self) -> float:
        """Seconds since the sale began."""
        return time.perf_counter() - self._began

    async def request(
        self,
        operation: Operation,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Response:
        """The final response to an idempotent request: one that reads, has a key, or releases.

        After a 503 with Retry-After or a broken connection the request is sent again.

        :raises NoResponse: after MAX_ATTEMPTS
        """
        for attempt in range(1, MAX_ATTEMPTS + 1):
            async with self._slots:
                began = self.now()
                response, retry_after = await self._send(method, path, body, headers)
            retry = retry_after is not None and attempt < MAX_ATTEMPTS
            self._seen.calls.append(
                Call(operation, began, self.now() - began, response.status, response.code, retry)
            )
            if retry_after is None:
                return response
            if retry:
                # With jitter, so that the retries do not arrive all at once.
                await asyncio.sleep(retry_after * self._random.uniform(1, 1.5))
        raise NoResponse(f"{operation}: {response}, {MAX_ATTEMPTS} times")

    async def _send(
        self, method: str, path: str, body: bytes | None, headers: Mapping[str, str] | None
    ) -> tuple[Response, float | None]:
        """The response, and the seconds until a retry if one is due."""
        try:
            async with self._session.request(
                method, self._url + path, data=body, headers=headers
            ) as received:
                raw = await received.read()
        except (aiohttp.ClientError, OSError, TimeoutError):
            return Response(NO_RESPONSE, {}), 0.2
        response = Response(
            received.status,
            _decode(raw),
            received.headers.get("Idempotency-Replayed") == "true",
            received.headers.get("X-Request-ID", ""),
        )
        retry_after = received.headers.get("Retry-After", "") if response.status == 503 else ""
        return response, float(retry_after) if retry_after.isascii() and retry_after.isdigit() else None


def _decode(raw: bytes) -> dict[str, Any]:
    try:
        decoded = msgspec.json.decode(raw) if raw else {}
    except msgspec.DecodeError:
        return {}
    return decoded if isinstance(decoded, dict) else {}


def _raise_file_limit(count: int) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < count:
        raise UserError(f"{count} open files exceed the limit of this machine: see ulimit -Hn")
    if soft != resource.RLIM_INFINITY and soft < count:
        resource.setrlimit(resource.RLIMIT_NOFILE, (count, hard))


@asynccontextmanager
async def open_client(
    url: str, concurrency: int, observed: Observations, seed: int, *, others: int = 0
) -> AsyncIterator[Client]:
    """A client of the server at `url` with persistent connections.

    :param others: concurrent requests of clients that are made of this one
    :raises UserError: the limit of open files is too low
    """
    _raise_file_limit(concurrency + others + SPARE_FILES)
    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0),
        cookie_jar=aiohttp.DummyCookieJar(),
        timeout=aiohttp.ClientTimeout(TIMEOUT_SECONDS),
    ) as session:
        yield Client(session, url, concurrency, observed, seed)
