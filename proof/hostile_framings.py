"""Streams of bytes with malformed or ambiguous framing, each with the responses that it must cause.

Product 1 is for requests whose responses are read. The others have ids that random requests do not hit: one
is for clients that disconnect before the response, one for requests smuggled inside another request.
"""

from typing import NamedTuple

from proof.raw_http import HOST, JSON, chunked, request

HOLD = b'{"product_id":1,"qty":1}'
ABANDONED_PRODUCT, SMUGGLED_PRODUCT = 424242, 424243
ABANDONED = b'{"product_id":%d,"qty":1}' % ABANDONED_PRODUCT
SMUGGLED = b'{"product_id":%d,"qty":1}' % SMUGGLED_PRODUCT


INNER = request(b"POST", b"/api/holds", JSON, SMUGGLED)
"""must not be parsed as a request of its own"""


class Framing(NamedTuple):
    """A stream of bytes, and the status of each response before the server closes.

    :param statuses: of all responses in order; empty for an incomplete request
    :param closes: the server closes the connection by itself
    """

    name: str
    data: bytes
    statuses: tuple[int, ...]
    closes: bool = True


def _post(headers: bytes, body: bytes = b"", target: bytes = b"/api/holds") -> bytes:
    return b"POST %s HTTP/1.1\r\n%s%s%s\r\n%s" % (target, HOST, JSON, headers, body)


def _get(line: bytes = b"GET /healthz HTTP/1.1", headers: bytes = HOST, *, then: bytes = b"") -> bytes:
    return line + b"\r\n" + headers + b"\r\n" + then


_CLOSE = b"Connection: close\r\n"
_HEALTH, LAST = request(b"GET", b"/healthz"), request(b"GET", b"/healthz", _CLOSE)
_PLACE = request(b"POST", b"/api/holds", JSON, HOLD)
_CHUNKED = b"Transfer-Encoding: chunked\r\n"

_WEBSOCKET = (
    b"Connection: Upgrade, close\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: MDAwMDAwMDAwMDAwMDAwMA==\r\n"
)

_H2C = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAEAAEAAAAIAAAAB\r\n"

LENGTHS = [b"-1", b"+24", b"0x18", b"24,25", b"24, 24", b"24 24", b"2 4", b"1e1", b"24.0", b"\xd9\xa3", b"x",
    b"9" * 30, b"18446744073709551640"]  # fmt: skip
CODINGS = [b"xchunked", b"chunked, identity", b"chunked, chunked", b"identity, cow", b"\x0bchunked",
    b"chunked\x00", b"chunked, gzip"]  # fmt: skip
CHUNKS = [
    b"-1\r\n{\r\n", b"+1\r\n{\r\n", b"0x1\r\n{\r\n", b"\r\n", b"g\r\n", b" 1\r\n{\r\n", b"1\n{\n0\n\n",
    b"FFFFFFFFFFFFFFFFFF\r\n", b"1\r\n{}\r\n", b"1\r\n{x\r\n", b"1\r\r\n{", b"\x00\r\n",
    b"1;" + b"\x00" + b"\r\n{\r\n", b"0\r\nX y: z\r\n\r\n",
]  # fmt: skip
LINES = [
    b"GET /healthz", b"GET /healthz  HTTP/1.1x", b"GET /healthz HTTP/2.0", b"GET /healthz HTTP/1.2.3",
    b"GET /healthz HTTP/9.9", b"GET /healthz http/1.1", b"GET /healthz HTTP/1.1 ", b"GET\t/healthz HTTP/1.1",
    b"get /healthz HTTP/1.1", b"G\x00T /healthz HTTP/1.1", b"FOO /healthz HTTP/1.1",
    b" GET /healthz HTTP/1.1",
    b"GET /health\x00z HTTP/1.1", b"GET /health\rz HTTP/1.1", b"GET /h z HTTP/1.1", b"GET healthz HTTP/1.1",
    b"GET /\xff HTTP/1.1", b"GET /\xc3\xa9 HTTP/1.1", b"/healthz GET HTTP/1.1",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc",
    b"PRI * HTTP/2.0", b"\x00" * 64, b"\xff\xfe" * 32, b"GET /healthz HTTP/1.1\x00", b"HTTP/1.1 200 OK",
    b"{}",
]  # fmt: skip
HEADERS = [
    b"X y: 1", b"X : 1", b": 1", b"no colon", b"X\x00: 1", b"X: \x00", b"X: a\rb: c", b"X: \x01", b"X\xff: 1",
    b" folded: first", b"(): 1", b"X:\x7f", b"Transfer-Encoding : chunked", b"\tX: 1", b'"X": 1',
    b"X\xc3\xa9: 1",
]  # fmt: skip


# fmt: off
def framings() -> list[Framing]:
    """Known attacks on framing, and unusual requests that are valid."""
    malformed = {
        **{f"request line {line[:30]!r}": _get(line) for line in LINES},
        **{f"header {header!r}": _get(headers=HOST + header + b"\r\n") for header in HEADERS},
        **{f"length {n!r}": _post(b"Content-Length: %s\r\n" % n, HOLD + INNER) for n in LENGTHS},
        **{f"coding {c!r}": _post(b"Transfer-Encoding: %s\r\n" % c, chunked(HOLD) + INNER) for c in CODINGS},
        **{f"chunk {chunk[:20]!r}": _post(_CHUNKED, chunk + INNER) for chunk in CHUNKS},
        # Ambiguous ends of a request.
        "length and chunked": _post(b"Content-Length: 24\r\n" + _CHUNKED, chunked(HOLD) + INNER),
        "chunked and length": _post(_CHUNKED + b"Content-Length: 3\r\n", b"0\r\n\r\n" + INNER),
        "two lengths": _post(b"Content-Length: 24\r\nContent-Length: 25\r\n", HOLD + INNER),
        "the same length twice": _post(b"Content-Length: 24\r\n" * 2, HOLD + INNER),
        "two codings": _post(_CHUNKED + b"Transfer-Encoding: identity\r\n", chunked(HOLD) + INNER),
        "folded coding": _post(b"Transfer-Encoding:\r\n chunked\r\n", chunked(HOLD) + INNER),
        "bare line feed": _post(b"X: y\nTransfer-Encoding: chunked\r\n", chunked(HOLD) + INNER),
        "coding in HTTP/1.0": request(b"POST", b"/api/holds", JSON + _CHUNKED, version=b"1.0") + INNER,
    }
    return [
        *(Framing(name, data, (400,)) for name, data in malformed.items()),
        Framing("a request in a GET's body", request(b"GET", b"/healthz", body=INNER) + LAST, (200, 200)),
        Framing("a request in a HEAD's chunks",
            b"GET /healthz HTTP/1.1\r\n" + HOST + _CHUNKED + b"\r\n" + chunked(INNER) + LAST, (200, 200)),
        Framing("a request in a refused body", request(b"POST", b"/nowhere", JSON, INNER) + LAST, (404, 200)),
        Framing("a request in a body too large", request(b"POST", b"/api/holds", JSON, INNER * 200) + LAST,
            (413, 200)),
        Framing("a request in a trailer",
            _post(_CHUNKED, chunked(b"{", end=b"0\r\nX: POST /api/holds\r\n\r\n")) + LAST, (400, 200)),
        Framing("a request after h2c", request(b"GET", b"/healthz", _H2C) * 2 + LAST, (200, 200, 200)),
        Framing("a request in a body after h2c", request(b"POST", b"/nowhere", JSON + _H2C, INNER) + LAST,
            (404, 200)),
        Framing("a request in chunks after h2c", _post(_H2C + _CHUNKED, chunked(INNER), b"/nowhere") + LAST,
            (404, 200)),
        Framing("a hold with h2c, as Java sends it",
            request(b"POST", b"/api/holds", JSON + _H2C, HOLD) * 2 + LAST, (201, 201, 200)),
        Framing("a websocket", request(b"GET", b"/healthz", _WEBSOCKET), (200,)),
        # Valid but unusual.
        Framing("HTTP/1.0", request(b"GET", b"/healthz", version=b"1.0"), (200,)),
        Framing("in absolute form", _get(b"GET http://shop.example/healthz HTTP/1.1", HOST + _CLOSE), (200,)),
        Framing("empty lines before", b"\r\n\r\n" + LAST, (200,)),
        Framing("a pipeline", _HEALTH * 50 + LAST, (200,) * 51),
        Framing("a hold, then garbage", _PLACE * 2 + b"\x00\r\n\r\n", (201, 201, 400)),
        Framing("holds, then half a coding", _PLACE * 2 + _post(_CHUNKED, b"x\r\n"), (201, 201, 400)),
        Framing("garbage in a refused body",
            _post(_CHUNKED, b"5000\r\n" + b"[" * 0x5000 + b"\r\nx\r\n", b"/nowhere"), (400,)),
        Framing("a pipeline, then garbage", _HEALTH * 3 + b"\x00\r\n\r\n", (200, 200, 200, 400)),
        Framing("expects", request(b"POST", b"/api/holds", JSON + b"Expect: 100-continue\r\n" + _CLOSE, HOLD),
            (201,)),
        Framing("chunk by chunk",
            _post(_CHUNKED + _CLOSE, chunked(*(HOLD[n : n + 1] for n in range(len(HOLD))))), (201,)),
        Framing("chunks with extensions",
            _post(_CHUNKED + _CLOSE, b'18;a=b;c="d"\r\n' + HOLD + b"\r\n0;x\r\n\r\n"), (201,)),
        # Too large.
        Framing("a long header", _get(headers=HOST + b"Cookie: " + b"x" * 100_000 + b"\r\n"), (431,)),
        Framing("many headers", _get(headers=HOST + b"X: 1\r\n" * 20_000), (431,)),
        Framing("a long target", _get(b"GET /" + b"x" * 100_000 + b" HTTP/1.1"), (431,)),
        Framing("an endless body", _post(_CLOSE + _CHUNKED, chunked(*[b"[" * 4096] * 8)), (413,)),
        Framing("a long chunk extension",
            _post(_CLOSE + _CHUNKED, b"1;" + b"x" * 200_000 + b"\r\n{\r\n0\r\n\r\n"), (400,)),
        # Incomplete requests: no response.
        Framing("nothing", b"", (), closes=False),
        Framing("half a line", b"GET /heal", (), closes=False),
        Framing("half a head", b"GET /healthz HTTP/1.1\r\nHost: x\r\nX-", (), closes=False),
        Framing("half a body", _post(b"Content-Length: 24\r\n", b'{"product_id":2,'), (), closes=False),
        Framing("half a chunk", _post(_CHUNKED, b"18\r\n" + b'{"product_id":2,'), (), closes=False),
    ]
# fmt: on
