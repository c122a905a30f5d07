"""HTTP below the application: what uvicorn answers before Falcon is asked, and what it has no limit for."""

import asyncio
import http
import logging
import socket
from time import perf_counter
from typing import Any

import httptools
from uvicorn._types import ASGI3Application
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from api import problems
from api.problems import Kind
from api.server.admission import Gate
from api.telemetry import metrics
from api.telemetry.request_id import RequestIds

MAX_HEAD_BYTES = 64 * 1024
"""of request line and headers together"""
MAX_REQUEST_SECONDS = 10.0
"""from a request's first byte to its last"""

PEER_TIMEOUT = 30
"""seconds in which a peer acknowledges what it was sent (RFC 5482), or is gone"""
END_STREAM = "end_stream"
"""name in a request's `state` (ASGI) of what the application wants called when a response without an end is
to come to one: the peer has left, or the server stops and waits for it"""
BEGAN = "began"
"""name there of when the request's head was complete, by perf_counter()"""
CUT = "cut"
"""name there that says that the request's body will never be whole: nothing may be done for it"""

_request_ids = RequestIds()
_log = logging.getLogger("flashsale.http")
_log.setLevel(logging.ERROR)  # uvicorn warns of each malformed request: anybody could fill the disk with that


class _Parser(httptools.HttpRequestParser):
    """Reads a request that would rather speak another protocol as if it did not say so (RFC 9110, 7.8).

    httptools takes what comes after such a head for the other protocol, and uvicorn drops it: the request's
    body, and every request behind it. So the head goes in once more, without its wish.
    """

    def __init__(self, protocol: "Protocol") -> None:
        self._protocol = protocol
        self._begin()

    def _begin(self) -> None:
        super().__init__(self._protocol)
        # As uvicorn has it: what comes after a request that is the connection's last is no error.
        self.set_dangerous_leniencies(lenient_data_after_close=True)

    def feed_data(self, data: bytes) -> None:
        while data:
            try:
                super().feed_data(data)
                return
            except httptools.HttpParserUpgrade as upgrade:
                data = self._protocol.head_without_upgrade() + data[upgrade.args[0] :]
                self._begin()


class Protocol(HttpToolsProtocol):
    """uvicorn's protocol on httptools, with problem details for what is no HTTP, and limits."""

    _began: float | None = None  # when the request that is being received began
    _head_bytes: int | None = None  # received of its head
    _fields: int  # of the head of the request that is being received
    _slow: asyncio.TimerHandle | None = None
    _running: RequestResponseCycle | None = None  # the request that is being answered, or was last
    _is_told: bool = False  # the application knows of the request that is being received
    _too_large: bool = False
    _refusal: tuple[Kind, str] | None = None  # to be told once the requests before it are answered
    _kept: bytes | None = None  # what has come of a request that waits outside

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.logger = _log
        self.parser = _Parser(self)
        if not hasattr(self.server_state, "gate"):  # one for all connections of a server
            self.server_state.gate = Gate(self.tasks.__len__, self.loop)  # type: ignore[attr-defined]
        self._gate: Gate = self.server_state.gate  # type: ignore[attr-defined]

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        # A phone that left without a word would keep its live stream for a quarter of an hour.
        peer = transport.get_extra_info("socket")
        if peer.family != socket.AF_UNIX:
            peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, PEER_TIMEOUT * 1000)
        # uvicorn waits for ever for the first byte; as long as for the next request is enough.
        self.timeout_keep_alive_task = self.loop.call_later(
            self.timeout_keep_alive, self.timeout_keep_alive_handler
        )

    def connection_lost(self, exc: Exception | None) -> None:
        self._began = self._kept = None
        # Timers would keep all this until they end; uvicorn stops its own only if the peer said goodbye.
        self._unset_keepalive_if_required()
        if self._slow is not None:
            self._slow.cancel()
            self._slow = None
        self._end_stream()
        # uvicorn tells only the newest request that its client has left: in a pipeline that is another one.
        if self._running is not None and not self._running.response_complete:
            # Falcon reads what there is as if it were all.
            if self._running.more_body:
                self._running.scope["state"][CUT] = True
            self._running.disconnected = True
            self._running.message_event.set()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._kept is not None:
            self._kept += data  # was read already when reading stopped
        elif self._gate.is_open or not self._is_between_requests():
            self._take(data)
        else:
            self._kept = data
            self.flow.pause_reading()
            self._gate.wait(self)

    def _is_between_requests(self) -> bool:
        return self._began is None and (self.cycle is None or self.cycle.response_complete)

    def come_in(self) -> None:
        data, self._kept = self._kept, None
        if data is not None and not self.transport.is_closing():
            self.flow.resume_reading()
            self._take(data)

    def turn_away(self) -> None:
        if self._kept is not None:
            self._answer(problems.OVERLOADED, problems.OVERLOADED.detail)

    def _take(self, data: bytes) -> None:
        super().data_received(data)
        if self._began is None or self.transport.is_closing():
            return
        if self._head_bytes is not None:
            self._head_bytes += len(data)
            if self._head_bytes > MAX_HEAD_BYTES:
                self._refuse(
                    problems.HEADERS_TOO_LARGE, f"The head of a request has at most {MAX_HEAD_BYTES} bytes."
                )
                return
        if self._slow is None:
            self._slow = self.loop.call_later(MAX_REQUEST_SECONDS, self._too_slow)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._began = self.loop.time()
        self._head_bytes = 0

    def on_headers_complete(self) -> None:
        self._head_bytes = None
        # httptools makes a parser error of what is raised here.
        if not self.url.isascii():
            raise ValueError("a request target is ASCII (RFC 3986)")
        if self.parser.get_http_version() not in ("1.0", "1.1"):
            raise ValueError("ASGI knows no HTTP/0.9, and this connection no HTTP/2")
        # However large it was: in one piece it has not been counted yet.
        size = len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)
        if size > MAX_HEAD_BYTES:
            self._too_large = True
            raise ValueError("the head is too large")
        if self.parser.should_upgrade():
            if self.parser.get_method() == b"CONNECT":
                raise ValueError("this is no proxy")
            return
        super().on_headers_complete()
        self._fields = len(self.headers)
        self._is_told = True
        self.scope["state"][BEGAN] = perf_counter()

    def head_without_upgrade(self) -> bytes:
        """The head that has just been read, as a client sends it that has no such wish."""
        lines = [b"%s: %s" % (name, value) for name, value in self.headers if name != b"upgrade"]
        version = self.parser.get_http_version().encode()
        first = b"%s %s HTTP/%s" % (self.parser.get_method(), self.url, version)
        return b"\r\n".join([first, *lines, b"", b""])

    def on_message_complete(self) -> None:
        if self.parser.should_upgrade():
            return  # it is about to be read again
        del self.headers[self._fields :]  # trailers are no headers (RFC 9110, 6.5.1)
        if not self.parser.should_keep_alive():
            # A trailer may say so, too, and then the parser is deaf to whatever comes.
            self.cycle.keep_alive = False
            if self.cycle.response_complete:
                self.transport.close()
        self._began = None
        self._is_told = False
        super().on_message_complete()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        self._running = cycle
        super()._start_asgi_task(cycle, app)

    def on_response_complete(self) -> None:
        is_last = not self.pipeline
        super().on_response_complete()
        self._gate.one_less()
        if is_last and self._refusal is not None:
            self._answer(*self._refusal)

    def _too_slow(self) -> None:
        self._slow = None
        if self._began is None or self.transport.is_closing():
            return
        left = self._began + MAX_REQUEST_SECONDS - self.loop.time()
        if left > 0:
            self._slow = self.loop.call_later(left, self._too_slow)
        else:
            self._refuse(
                problems.REQUEST_TIMEOUT, f"A request arrives within {MAX_REQUEST_SECONDS:.0f} seconds."
            )

    def shutdown(self) -> None:
        self._end_stream()
        super().shutdown()

    def _end_stream(self) -> None:
        if self._running is not None and (end := self._running.scope["state"].get(END_STREAM)):
            end()

    def send_400_response(self, msg: str) -> None:
        if self._too_large:
            self._refuse(
                problems.HEADERS_TOO_LARGE, f"The head of a request has at most {MAX_HEAD_BYTES} bytes."
            )
        else:
            self._refuse(problems.BAD_REQUEST, msg)

    def _refuse(self, kind: Kind, detail: str) -> None:
        """Answer in the application's stead, unless it has begun to, and close."""
        if self._refusal is not None:
            return
        running = self._running
        is_answering = running is not None and not running.response_complete
        if running is not None and running.response_started and (self._is_told or is_answering):
            self.transport.close()
        # In a pipeline those before it are answered first (RFC 9112, 9.3.2): they may have had their effect.
        elif self._is_told and self.cycle is not running:
            self.pipeline.popleft()
            self._refusal = kind, detail
        elif not self._is_told and is_answering:
            self._refusal = kind, detail
        else:
            self._answer(kind, detail)

    def _answer(self, kind: Kind, detail: str) -> None:
        if self.transport.is_closing():
            return
        metrics.refusals.of[(kind.code,)] += 1
        metrics.requests.of["", "", str(kind.status)] += 1
        body = problems.body(kind, detail)
        head = [
            f"HTTP/1.1 {kind.status} {http.HTTPStatus(kind.status).phrase}",
            f"content-type: {problems.MEDIA_TYPE}",
            f"content-length: {len(body)}",
            f"x-request-id: {_request_ids.new()}",
            "cache-control: no-store",
            "connection: close",
        ]
        if kind.retry_after is not None:
            head.append(f"retry-after: {kind.retry_after}")
        self.transport.write("\r\n".join([*head, "", ""]).encode() + body)
        self.transport.close()


def uvicorn_settings() -> dict[str, Any]:
    """What gunicorn's workers hand to uvicorn."""
    return {
        "http": Protocol,
        "loop": "uvloop",
        "interface": "asgi3",
        "lifespan": "on",
        "ws": "none",
        "access_log": False,
        "server_header": False,
        "proxy_headers": False,
        "timeout_graceful_shutdown": 10,
    }
