"""Buyers: a small HTTP/1.1 client that costs little beside the server it loads, and one step of a sale each.

A step is called over HTTP or in SQL. Either way it ends in one of four: its response, Refused, NotDone, or
OutcomeUnknown.
"""

import asyncio
import json
import time
from dataclasses import dataclass
from typing import Any, Self
from urllib.parse import urlsplit

import psycopg

from api.database.connection import disconnect_after
from api.database.hosts import PrimaryConnection
from proof.raw_http import NoResponse, Response


class NotConnected(Exception):
    """The connection was refused; nothing was sent."""


class Connection:
    """One keep-alive connection, opened when it is needed and again when it broke."""

    def __init__(self, url: str, timeout: float = 10) -> None:
        self._address = urlsplit(url)
        self._timeout = timeout
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def request(self, method: str, path: str, body: object = None, key: str | None = None) -> Response:
        """:raises NoResponse, NotConnected:"""
        content = b"" if body is None else json.dumps(body).encode()
        head = [f"{method} {path} HTTP/1.1", "Host: shop"]
        if body is not None:
            head += ["Content-Type: application/json", f"Content-Length: {len(content)}"]
        if key is not None:
            head.append(f"Idempotency-Key: {key}")
        message = "\r\n".join([*head, "", ""]).encode() + content
        began = time.monotonic()
        reader, writer = self._streams or await self._connect()
        try:
            async with asyncio.timeout(self._timeout):
                writer.write(message)
                status, headers, received = await self._read(reader)
        except (OSError, EOFError, TimeoutError) as error:
            await self.close()
            raise NoResponse(f"{method} {path}: {error!r}") from error
        if headers.get("connection") == "close":
            await self.close()
        return Response(status, headers, received, time.monotonic() - began)

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        try:
            self._streams = await asyncio.open_connection(self._address.hostname, self._address.port)
        except OSError as error:
            raise NotConnected(str(error)) from error
        return self._streams

    @staticmethod
    async def _read(reader: asyncio.StreamReader) -> tuple[int, dict[str, str], bytes]:
        first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")[:-2]
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        body = await reader.readexactly(int(headers.get("content-length", 0)))
        return int(first.split(" ", 2)[1]), headers, body

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.close()

    async def close(self) -> None:
        if self._streams is not None:
            _, writer = self._streams
            self._streams = None
            writer.transport.abort()


def p99(seconds: list[float]) -> float:
    """The 99th percentile."""
    return sorted(seconds)[min(len(seconds) - 1, len(seconds) * 99 // 100)]


# --- steps of a sale ---


class Refused(Exception):
    """The definite refusal of a step."""


class NotDone(Exception):
    """The step has had no effect: the server reported so, or was not reached."""


class OutcomeUnknown(Exception):
    """The step may have had its effect."""


@dataclass(frozen=True)
class Payment:
    """The effect of a webhook."""

    order_id: int
    status: str | None
    result: str


class HttpClient:
    """A buyer and the payment provider, over HTTP."""

    def __init__(self, url: str) -> None:
        self._connection = Connection(url)

    async def place_hold(self, product_id: int, qty: int, key: str | None) -> int:
        response = await self._step("POST", "/api/holds", {"product_id": product_id, "qty": qty}, key)
        return response.json["hold_id"]

    async def create_order(self, hold_id: int, key: str | None) -> int:
        return (await self._step("POST", "/api/orders", {"hold_id": hold_id}, key)).json["order_id"]

    async def release_hold(self, hold_id: int) -> None:
        await self._step("DELETE", f"/api/holds/{hold_id}")

    async def apply_payment(self, key: str, order_id: int, status: str) -> Payment:
        event = {"idempotency_key": key, "order_id": order_id, "status": status}
        return Payment(**(await self._step("POST", "/api/payments/webhook", event)).json)

    async def close(self) -> None:
        await self._connection.close()

    async def _step(self, method: str, path: str, body: object = None, key: str | None = None) -> Response:
        try:
            response = await self._connection.request(method, path, body, key)
        except NotConnected as error:
            raise NotDone(str(error)) from error
        except NoResponse as error:
            raise OutcomeUnknown(str(error)) from error
        if response.status < 300:
            return response
        assert response.code is not None and response.status != 500, response
        if response.status != 503:
            raise Refused(response.code)
        assert int(response.headers["retry-after"]) >= 1
        raise OutcomeUnknown(response.code) if response.code == "outcome_unknown" else NotDone(response.code)


REFUSALS = {"SA002", "SA004", "SA005", "SA006"}


class SqlClient:
    """A service that calls the functions over a connection of its own.

    :param url: of several hosts, the primary is used
    :param timeout: seconds for a call
    """

    def __init__(self, url: str, timeout: float = 60) -> None:
        self._url = url
        self._timeout = timeout
        self._connection: psycopg.AsyncConnection | None = None

    async def place_hold(self, product_id: int, qty: int, key: str | None) -> int:
        query = "select hold_id from flashsale.place_hold(%s::bigint, %s::int, %s)"
        return (await self._step(query, product_id, qty, key))[0]

    async def create_order(self, hold_id: int, key: str | None) -> int:
        query = "select order_id from flashsale.create_order(%s::bigint, %s)"
        return (await self._step(query, hold_id, key))[0]

    async def release_hold(self, hold_id: int) -> None:
        await self._step("select * from flashsale.release_hold(%s::bigint)", hold_id)

    async def apply_payment(self, key: str, order_id: int, status: str) -> Payment:
        query = "select order_id, status, result from flashsale.apply_payment(%s, %s::bigint, %s)"
        return Payment(*await self._step(query, key, order_id, status))

    async def close(self) -> None:
        if self._connection is not None:
            connection, self._connection = self._connection, None
            await connection.close()

    async def _step(self, query: str, *arguments: object) -> tuple[Any, ...]:
        if self._connection is None:
            try:
                self._connection = await PrimaryConnection.connect(self._url, autocommit=True)
            except psycopg.OperationalError as error:
                raise NotDone(str(error)) from error
        timer = disconnect_after(self._connection, self._timeout)
        try:
            return await (await self._connection.execute(query, arguments)).fetchone()
        except psycopg.Error as error:
            if error.sqlstate in REFUSALS:
                raise Refused(error.sqlstate) from error
            if not isinstance(error, psycopg.OperationalError):
                raise
            await self.close()
            raise OutcomeUnknown(str(error)) from error
        finally:
            timer.cancel()
