"""HTTP as bytes: sends what no client library would, and parses responses strictly."""

import json
import re
import socket
from typing import Any, NamedTuple
from urllib.parse import urlsplit

HOST = b"Host: shop.example\r\n"
JSON = b"Content-Type: application/json\r\n"
PROBLEM = "application/problem+json"
_STATUS_LINE = re.compile(rb"HTTP/1\.1 ([1-5][0-9]{2}) [\x20-\x7e]+").fullmatch
_HEADER = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+): ?([\x20-\x7e]*)").fullmatch


def request(
    method: bytes, target: bytes, headers: bytes = b"", body: bytes | None = None, *, version: bytes = b"1.1"
) -> bytes:
    """A request with correct framing."""
    length = b"" if body is None else b"Content-Length: %d\r\n" % len(body)
    return b"%s %s HTTP/%s\r\n%s%s%s\r\n%s" % (method, target, version, HOST, headers, length, body or b"")


def chunked(*chunks: bytes, end: bytes = b"0\r\n\r\n") -> bytes:
    return b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks) + end


class NoResponse(Exception):
    """The timeout passed, or the connection ended, before a complete response."""


class Response(NamedTuple):
    """A response, after so many seconds."""

    status: int
    headers: dict[str, str]
    body: bytes
    seconds: float = 0

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def code(self) -> str | None:
        """The problem's code, if this is one."""
        return self.json["code"] if self.headers.get("content-type") == PROBLEM else None


class RawConnection:
    """A connection of its own, on which any bytes can be sent.

    :param timeout: seconds
    """

    def __init__(self, server: str, timeout: float = 30) -> None:
        address = urlsplit(server)
        self._socket = socket.create_connection((address.hostname, address.port), timeout=timeout)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._read = b""

    def __enter__(self) -> "RawConnection":
        return self

    def __exit__(self, *raised: object) -> None:
        self._socket.close()

    def send(self, data: bytes) -> None:
        """Send it, or the part of it before the server closes."""
        try:
            self._socket.sendall(data)
        except (BrokenPipeError, ConnectionResetError):
            return

    def reset(self) -> None:
        """Close with a RST: whatever is under way is dropped."""
        linger = (1).to_bytes(4, "little") + (0).to_bytes(4, "little")
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self._socket.close()

    def response(self, *, to_head: bool = False) -> Response | None:
        """The next response; None once the server has closed.

        Fails on anything else than a complete HTTP response.

        :param to_head: the request is a HEAD, so the response has no body
        :raises NoResponse:
        """
        while (end := self._read.find(b"\r\n\r\n")) < 0:
            if not self._receive():
                assert self._read == b"", f"truncated: {self._read[:200]!r}"
                return None
        status_line, *lines = self._read[:end].split(b"\r\n")
        matched = _STATUS_LINE(status_line)
        assert matched, f"not a status line: {status_line!r}"
        headers: dict[str, str] = {}
        for line in lines:
            header = _HEADER(line)
            assert header, f"not a header: {line!r}"
            headers[header[1].decode().lower()] = header[2].decode()
        status = int(matched[1])
        self._read = self._read[end + 4 :]
        if 100 <= status < 200:
            return self.response(to_head=to_head)
        assert "transfer-encoding" not in headers, headers
        length = 0 if status in (204, 304) else int(headers["content-length"])
        if to_head:
            # No body, unless a malformed head was not recognised as a HEAD; then the server closes.
            has_body = headers.get("connection") == "close" and (self._read or self._receive())
            length = length if has_body else 0
        while len(self._read) < length:
            assert self._receive(), f"{len(self._read)} of {length} bytes of {headers}"
        body, self._read = self._read[:length], self._read[length:]
        return Response(status, headers, body)

    def responses(self) -> list[Response]:
        """All responses until the server closes."""
        return list(iter(self.response, None))

    def _receive(self) -> bool:
        try:
            data = self._socket.recv(1 << 16)
        except TimeoutError:
            raise NoResponse(f"silent after {self._read[:200]!r}") from None
        except ConnectionResetError:
            data = b""
        self._read += data
        return bool(data)


def send_webhook(server: str, headers: dict[str, str], body: bytes) -> int:
    """The status of the response to a webhook with these headers."""
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items()).encode("latin1")
    with RawConnection(server) as connection:
        connection.send(request(b"POST", b"/api/payments/webhook", JSON + lines, body))
        return connection.response().status
