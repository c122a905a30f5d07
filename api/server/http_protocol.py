"""uvicorn's HTTP protocol with admission control, limits, and problem details for its own errors."""

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
from api.context import BODY_TRUNCATED, CROSS_ORIGIN, ON_DISCONNECT, REQUEST_STARTED
from api.cross_origin import origin_of
from api.problems import ProblemType
from api.server.admission import AdmissionController
from api.server.open_files import max_client_connections
from api.telemetry import metrics
from api.telemetry.request_id import RequestIds

MAX_HEAD_BYTES = 64 * 1024
"""of request line and headers together"""
MAX_REQUEST_SECONDS = 10.0
"""from a request's first byte to its last"""

PEER_TIMEOUT_SECONDS = 30
"""seconds until a peer that acknowledges no data counts as disconnected (RFC 5482)"""

SHUTDOWN_GRACE_SECONDS = 1.0
"""seconds that an idle connection stays open when the server shuts down: a request may be on its way"""

_request_ids = RequestIds()
_log = logging.getLogger("flashsale.http")
_log.setLevel(logging.ERROR)  # uvicorn logs each malformed request: clients could fill the disk


class _Parser(httptools.HttpRequestParser):
    """Ignores requests to upgrade to another protocol (RFC 9110, 7.8).

    After a head with Upgrade httptools stops parsing, and uvicorn drops what follows: the request's body, and
    all pipelined requests. So the head is parsed a second time, without the Upgrade header.
    """

    def __init__(self, protocol: "Protocol") -> None:
        self._protocol = protocol
        self._begin()

    def _begin(self) -> None:
        super().__init__(self._protocol)
        # As in uvicorn: data after the last request of a connection is not an error.
        self.set_dangerous_leniencies(lenient_data_after_close=True)

    def feed_data(self, data: bytes) -> None:  # type: ignore[override] # uvicorn passes bytes only
        while data:
            try:
                super().feed_data(data)
                return
            except httptools.HttpParserUpgrade as upgrade:
                data = self._protocol.head_without_upgrade() + data[upgrade.args[0] :]
                self._begin()


class Protocol(HttpToolsProtocol):
    """One client's connection."""

    # Of the request that is being received:
    _started_at: float | None = None
    _head_bytes: int | None = None  # received so far; None once the head is complete
    _header_count: int
    _is_dispatched: bool = False  # the application has been called, or will be after the requests before it
    _is_head_too_large: bool = False
    _timer: asyncio.TimerHandle | None = None

    _is_shutting_down: bool = False
    _current: RequestResponseCycle | None = None  # the request that is being responded to, or was last
    # To be sent after the responses to earlier requests: problem, detail, the request's Origin.
    _problem: tuple[ProblemType, str, bytes | None] | None = None
    _unparsed: bytes | None = None  # received while waiting for admission

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.logger = _log
        self.parser = _Parser(self)
        state: Any = self.server_state  # shared by all connections of a server
        if not hasattr(state, "admission"):
            state.admission = AdmissionController(self.tasks.__len__, self.loop)
        if not hasattr(state, "max_connections"):
            state.max_connections = max_client_connections()
        self._admission: AdmissionController = state.admission
        self._max_connections: int = state.max_connections

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        # Otherwise the stock feed of a phone that lost its network would stay open for 15 minutes.
        peer = transport.get_extra_info("socket")
        if peer.family != socket.AF_UNIX:
            peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, PEER_TIMEOUT_SECONDS * 1000)
        # uvicorn has no timeout for the first request.
        self.timeout_keep_alive_task = self.loop.call_later(
            self.timeout_keep_alive, self.timeout_keep_alive_handler
        )
        if len(self.connections) > self._max_connections:  # guard: reserved-files
            self._write_problem(problems.OVERLOADED, "", None)

    def connection_lost(self, exc: Exception | None) -> None:
        self._started_at = self._unparsed = None
        # A pending timer keeps this object alive; uvicorn cancels its own only after an orderly shutdown.
        self._unset_keepalive_if_required()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._end_stream()
        # uvicorn marks only the newest request as disconnected, which in a pipeline is a later one.
        if self._current is not None and not self._current.response_complete:
            # Falcon treats the end of the connection as the end of the body.
            if self._current.more_body:
                self._current.scope["state"][BODY_TRUNCATED] = True
            self._current.disconnected = True
            self._current.message_event.set()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._unparsed is not None:
            self._unparsed += data  # had been read when reading was paused
        elif self._admission.has_capacity or not self._is_between_requests():
            self._parse(data)
        else:
            self._unparsed = data
            self.flow.pause_reading()
            self._admission.wait(self)

    def _is_between_requests(self) -> bool:
        return self._started_at is None and (self.cycle is None or self.cycle.response_complete)

    def resume(self) -> None:
        """Process the request that waited for admission."""
        data, self._unparsed = self._unparsed, None
        if data is not None and not self.transport.is_closing():
            self.flow.resume_reading()
            self._parse(data)

    def reject(self) -> None:
        """Reject the request that waited for admission."""
        if self._unparsed is not None:
            origin = origin_of(self._unparsed) if CROSS_ORIGIN in self.app_state else None
            self._write_problem(problems.OVERLOADED, "", origin)

    def _parse(self, data: bytes) -> None:
        super().data_received(data)
        if self._started_at is None or self.transport.is_closing():
            return
        if self._head_bytes is not None:
            self._head_bytes += len(data)
            if self._head_bytes > MAX_HEAD_BYTES:
                self._fail(problems.HEADERS_TOO_LARGE)
                return
        if self._timer is None:
            self._timer = self.loop.call_later(MAX_REQUEST_SECONDS, self._check_timeout)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._started_at = self.loop.time()
        self._head_bytes = 0

    def on_headers_complete(self) -> None:
        self._head_bytes = None
        # httptools turns exceptions that are raised here into parser errors.
        if not self.url.isascii():
            raise ValueError("a request target must be ASCII (RFC 3986)")
        if self.parser.get_http_version() not in ("1.0", "1.1"):
            raise ValueError("only HTTP/1.0 and HTTP/1.1 are supported")
        # _head_bytes does not count a head that arrived in one piece.
        size = len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)
        if size > MAX_HEAD_BYTES:
            self._is_head_too_large = True
            raise ValueError("the head is too large")
        if self.parser.should_upgrade():
            if self.parser.get_method() == b"CONNECT":
                raise ValueError("CONNECT is not supported")
            return
        super().on_headers_complete()
        if self._is_shutting_down:
            self.cycle.keep_alive = False
        self._header_count = len(self.headers)
        self._is_dispatched = True
        self.scope["state"][REQUEST_STARTED] = perf_counter()

    def head_without_upgrade(self) -> bytes:
        """The head that has just been parsed, without its Upgrade header."""
        lines = [b"%s: %s" % (name, value) for name, value in self.headers if name != b"upgrade"]
        version = self.parser.get_http_version().encode()
        first = b"%s %s HTTP/%s" % (self.parser.get_method(), self.url, version)
        return b"\r\n".join([first, *lines, b"", b""])

    def on_message_complete(self) -> None:
        if self.parser.should_upgrade():
            return  # it is about to be parsed again
        del self.headers[self._header_count :]  # trailers are not headers (RFC 9110, 6.5.1)
        if not self.parser.should_keep_alive():
            # Also if a trailer asked for it; the parser then ignores what follows.
            self.cycle.keep_alive = False
            if self.cycle.response_complete:
                self.transport.close()
        self._started_at = None
        self._is_dispatched = False
        super().on_message_complete()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        self._current = cycle
        super()._start_asgi_task(cycle, app)

    def on_response_complete(self) -> None:
        is_last = not self.pipeline
        super().on_response_complete()
        self._admission.release()
        if is_last and self._problem is not None:
            self._write_problem(*self._problem)

    def _check_timeout(self) -> None:
        self._timer = None
        if self._started_at is None or self.transport.is_closing():
            return
        left = self._started_at + MAX_REQUEST_SECONDS - self.loop.time()
        if left > 0:
            self._timer = self.loop.call_later(left, self._check_timeout)
        else:
            self._fail(problems.REQUEST_TIMEOUT)

    def shutdown(self) -> None:
        """Close the connection after the response to its current request, or else to the next one.

        uvicorn closes idle connections at once: a proxy that has just sent a request over one cannot know
        whether it was served.
        """
        self._end_stream()
        self._is_shutting_down = True
        if self.cycle is None or self.cycle.response_complete:  # guard: shutdown-grace
            self.loop.call_later(SHUTDOWN_GRACE_SECONDS, self._close_if_idle)
        else:
            super().shutdown()

    def _close_if_idle(self) -> None:
        if self._is_between_requests() and self._unparsed is None:
            self.transport.close()

    def _end_stream(self) -> None:
        if self._current is not None and (end := self._current.scope["state"].get(ON_DISCONNECT)):
            end()

    def send_400_response(self, msg: str) -> None:
        if self._is_head_too_large:
            self._fail(problems.HEADERS_TOO_LARGE)
        else:
            self._fail(problems.BAD_REQUEST, msg)

    def _fail(self, type_: ProblemType, detail: str = "") -> None:
        """Respond with a problem instead of the application, unless its response has started, and close."""
        if self._problem is not None:
            return
        origin = next((value for name, value in self.headers or () if name == b"origin"), None)
        current = self._current
        is_responding = current is not None and not current.response_complete
        if current is not None and current.response_started and (self._is_dispatched or is_responding):
            self.transport.close()
        # Responses to earlier requests of a pipeline come first (RFC 9112, 9.3.2).
        elif self._is_dispatched and self.cycle is not current:
            self.pipeline.popleft()
            self._problem = type_, detail, origin
        elif not self._is_dispatched and is_responding:
            self._problem = type_, detail, origin
        else:
            self._write_problem(type_, detail, origin)

    def _write_problem(self, type_: ProblemType, detail: str, origin: bytes | None) -> None:
        if self.transport.is_closing():
            return
        metrics.problems.by_labels[(type_.code,)] += 1
        metrics.requests.by_labels["", "", str(type_.status)] += 1
        body = problems.encode_problem(type_, detail or type_.detail)
        head = [
            f"HTTP/1.1 {type_.status} {http.HTTPStatus(type_.status).phrase}",
            f"content-type: {problems.MEDIA_TYPE}",
            f"content-length: {len(body)}",
            f"x-request-id: {_request_ids.new()}",
            "cache-control: no-store",
            "connection: close",
        ]
        if type_.retry_after is not None:
            head.append(f"retry-after: {type_.retry_after}")
        if cross_origin := self.app_state.get(CROSS_ORIGIN):  # guard: cors-below-application
            head.extend(f"{name}: {value}" for name, value in cross_origin.headers(origin).items())
        self.transport.write("\r\n".join([*head, "", ""]).encode() + body)
        self.transport.close()


def uvicorn_settings() -> dict[str, Any]:
    """uvicorn's settings in gunicorn's workers."""
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
