"""Buyers: a small HTTP/1.1 client that costs little beside the server it loads, and one step of a sale each.

A step is asked for over HTTP or in SQL. Either way it ends in one of four: what was asked for, Refused,
NothingDone, or Unknown.
"""

import asyncio
import json
import time
from dataclasses import dataclass
from typing import Any, NamedTuple, Self
from urllib.parse import urlsplit

import psycopg


class Answer(NamedTuple):
    """What came back, after so many seconds."""

    status: int
    headers: dict[str, str]
    body: bytes
    seconds: float

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def code(self) -> str | None:
        """The problem's code, if this is one."""
        is_problem = self.headers.get("content-type") == "application/problem+json"
        return self.json["code"] if is_problem else None

    @property
    def replayed(self) -> bool:
        return self.headers.get("idempotency-replayed") == "true"


class Unanswered(Exception):
    """The connection ended, or nothing came, before the answer was whole."""


class NotConnected(Exception):
    """Nobody listens; nothing was sent."""


class Connection:
    """One keep-alive connection, opened when it is needed and again when it broke."""

    def __init__(self, url: str, patience: float = 10) -> None:
        self._address = urlsplit(url)
        self._patience = patience
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(self, method: str, path: str, body: object = None, key: str | None = None) -> Answer:
        """:raises Unanswered, NotConnected:"""
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
            async with asyncio.timeout(self._patience):
                writer.write(message)
                status, headers, answer = await self._read(reader)
        except (OSError, EOFError, TimeoutError) as error:
            await self.close()
            raise Unanswered(f"{method} {path}: {error!r}") from error
        if headers.get("connection") == "close":
            await self.close()
        return Answer(status, headers, answer, time.monotonic() - began)

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
    """What 99 of 100 stayed within."""
    return sorted(seconds)[min(len(seconds) - 1, len(seconds) * 99 // 100)]


# --- steps of a sale ---


class Refused(Exception):
    """No, and it will be no again.

    :param code: as in the README's table
    """

    def __init__(self, code: str, members: dict[str, Any] | None = None) -> None:
        super().__init__(code, members)
        self.code = code
        self.members = members or {}


class NothingDone(Exception):
    """The server said, or it is plain, that the step has had no effect."""


class Unknown(Exception):
    """Nobody knows whether the step has had its effect."""


@dataclass(frozen=True)
class Payment:
    """What a webhook has done."""

    order_id: int
    status: str | None
    result: str


class OverHttp:
    """A buyer, and the payment provider, who talk HTTP."""

    def __init__(self, url: str) -> None:
        self._connection = Connection(url)

    async def place_hold(self, product_id: int, qty: int, key: str | None) -> int:
        answer = await self._step("POST", "/api/holds", {"product_id": product_id, "qty": qty}, key)
        return answer.json["hold_id"]

    async def create_order(self, hold_id: int, key: str | None) -> int:
        return (await self._step("POST", "/api/orders", {"hold_id": hold_id}, key)).json["order_id"]

    async def release_hold(self, hold_id: int) -> None:
        await self._step("DELETE", f"/api/holds/{hold_id}")

    async def apply_payment(self, key: str, order_id: int, status: str) -> Payment:
        event = {"idempotency_key": key, "order_id": order_id, "status": status}
        return Payment(**(await self._step("POST", "/api/payments/webhook", event)).json)

    async def close(self) -> None:
        await self._connection.close()

    async def _step(self, method: str, path: str, body: object = None, key: str | None = None) -> Answer:
        try:
            answer = await self._connection.ask(method, path, body, key)
        except NotConnected as error:
            raise NothingDone(str(error)) from error
        except Unanswered as error:
            raise Unknown(str(error)) from error
        if answer.status < 300:
            return answer
        assert answer.code is not None and answer.status != 500, answer
        if answer.status != 503:
            raise Refused(answer.code, answer.json)
        assert int(answer.headers["retry-after"]) >= 1
        raise Unknown(answer.code) if answer.code == "outcome_unknown" else NothingDone(answer.code)


CODES = {
    "SA002": "insufficient_stock",
    "SA004": "hold_expired",
    "SA005": "hold_released",
    "SA006": "hold_already_used",
}


class InSql:
    """A service that calls the functions over a connection of its own."""

    def __init__(self, url: str) -> None:
        self._url = url
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
                self._connection = await psycopg.AsyncConnection.connect(self._url, autocommit=True)
            except psycopg.OperationalError as error:
                raise NothingDone(str(error)) from error
        try:
            return await (await self._connection.execute(query, arguments)).fetchone()
        except psycopg.Error as error:
            if error.sqlstate in CODES:
                raise Refused(CODES[error.sqlstate]) from error
            if not isinstance(error, psycopg.OperationalError):
                raise
            await self.close()
            raise Unknown(str(error)) from error
