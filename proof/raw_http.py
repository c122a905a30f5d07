"""HTTP as bytes: sends what no client library would, and reads whatever comes back."""

import json
import re
import socket
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

HOST = b"Host: shop.example\r\n"
JSON = b"Content-Type: application/json\r\n"
PROBLEM = "application/problem+json"
_STATUS_LINE = re.compile(rb"HTTP/1\.1 ([1-5][0-9]{2}) [\x20-\x7e]+").fullmatch
_HEADER = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+): ?([\x20-\x7e]*)").fullmatch


def request(
    method: bytes, target: bytes, headers: bytes = b"", body: bytes | None = None, *, version: bytes = b"1.1"
) -> bytes:
    """A request in right framing."""
    length = b"" if body is None else b"Content-Length: %d\r\n" % len(body)
    return b"%s %s HTTP/%s\r\n%s%s%s\r\n%s" % (method, target, version, HOST, headers, length, body or b"")


def chunked(*chunks: bytes, end: bytes = b"0\r\n\r\n") -> bytes:
    return b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks) + end


class Silence(Exception):
    """Nothing came within the time that is given to it."""


@dataclass(frozen=True)
class Answer:
    """A response, as it was read."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def problem(self) -> str | None:
        """The code of the problem that it is."""
        return self.json["code"] if self.headers.get("content-type") == PROBLEM else None


class Wire:
    """A connection of its own, on which anything can be sent.

    :param timeout: seconds until silence is an error
    """

    def __init__(self, server: str, timeout: float = 30) -> None:
        address = urlsplit(server)
        self._socket = socket.create_connection((address.hostname, address.port), timeout=timeout)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._read = b""
        self.is_closed = False

    def __enter__(self) -> "Wire":
        return self

    def __exit__(self, *raised: object) -> None:
        self._socket.close()

    def send(self, data: bytes) -> bool:
        """Send it; False if the server has closed and did not want to hear the end."""
        try:
            self._socket.sendall(data)
        except (BrokenPipeError, ConnectionResetError):
            return False
        return True

    def reset(self) -> None:
        """Leave as a client does whose machine went away: whatever is under way is cut."""
        linger = (1).to_bytes(4, "little") + (0).to_bytes(4, "little")
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self._socket.close()

    def answer(self, *, to_head: bool = False) -> Answer | None:
        """The next response; None once the server has closed.

        Fails on anything that is no HTTP response in full.

        :param to_head: it answers a HEAD request, and so has no body
        :raises Silence:
        """
        while (end := self._read.find(b"\r\n\r\n")) < 0:
            if not self._more():
                assert self._read == b"", f"cut short: {self._read[:200]!r}"
                return None
        status_line, *lines = self._read[:end].split(b"\r\n")
        matched = _STATUS_LINE(status_line)
        assert matched, f"no status line: {status_line!r}"
        headers: dict[str, str] = {}
        for line in lines:
            header = _HEADER(line)
            assert header, f"no header: {line!r}"
            headers[header[1].decode().lower()] = header[2].decode()
        status = int(matched[1])
        self._read = self._read[end + 4 :]
        if 100 <= status < 200:
            return self.answer(to_head=to_head)
        assert "transfer-encoding" not in headers, headers
        length = 0 if status in (204, 304) else int(headers["content-length"])
        if to_head:
            # None; but where the head is broken the server may not know what it answers, and closes.
            is_whole = headers.get("connection") == "close" and (self._read or self._more())
            length = length if is_whole else 0
        while len(self._read) < length:
            assert self._more(), f"{len(self._read)} of {length} bytes of {headers}"
        body, self._read = self._read[:length], self._read[length:]
        return Answer(status, headers, body)

    def answers(self) -> list[Answer]:
        """All responses until the server closes."""
        found: list[Answer] = []
        while (answer := self.answer()) is not None:
            found.append(answer)
        return found

    def _more(self) -> bool:
        try:
            data = self._socket.recv(1 << 16)
        except TimeoutError:
            raise Silence(f"nothing came, after {self._read[:200]!r}") from None
        except ConnectionResetError:
            data = b""
        self.is_closed = not data
        self._read += data
        return bool(data)
