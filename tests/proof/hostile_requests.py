"""HTTP requests as hostile clients make them: well framed with all else wrong, or broken in their framing.

Product 1 is for requests whose answers are read. The others have ids that nobody hits upon by chance: one is
for requests that leave before their answers, one for what is smuggled inside another request.
"""

import json
import random
from typing import NamedTuple

from tests.hostile_arguments import HOSTILE, PAYLOADS
from tests.hostile_bodies import INVALID_HOLDS, MALFORMED, UNKEEPABLE_MEMBERS

HOST = b"Host: shop.example\r\n"
JSON = b"Content-Type: application/json\r\n"
HOLD = b'{"product_id":1,"qty":1}'
ABANDONED_PRODUCT, SMUGGLED_PRODUCT = 424242, 424243
ABANDONED = b'{"product_id":%d,"qty":1}' % ABANDONED_PRODUCT
SMUGGLED = b'{"product_id":%d,"qty":1}' % SMUGGLED_PRODUCT
HOLD_IDS = range(1, 501)
"""some of these holds exist"""
BEYOND_ANY_BODY = 20_000
"""bytes; more than a body may have, so that whatever length a spoilt head claims comes to an end"""


def request(
    method: bytes, target: bytes, headers: bytes = b"", body: bytes | None = None, *, version: bytes = b"1.1"
) -> bytes:
    """A request in right framing."""
    length = b"" if body is None else b"Content-Length: %d\r\n" % len(body)
    return b"%s %s HTTP/%s\r\n%s%s%s\r\n%s" % (method, target, version, HOST, headers, length, body or b"")


def chunked(*chunks: bytes, end: bytes = b"0\r\n\r\n") -> bytes:
    return b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks) + end


INNER = request(b"POST", b"/api/holds", JSON, SMUGGLED)
"""what must not be taken for a request of its own"""


class Framing(NamedTuple):
    """A stream of bytes, and the status of each answer it must bring before the server closes.

    :param statuses: of all its answers in order; empty, where it is no whole request and none is owed
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


_LAST = request(b"GET", b"/healthz", b"Connection: close\r\n")
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


def framings() -> list[Framing]:
    """Every broken framing there is a name for."""
    refused = (400,)
    return [
        *(Framing(f"request line {line[:30]!r}", _get(line), refused) for line in LINES),
        *(
            Framing(f"header {header!r}", _get(headers=HOST + header + b"\r\n"), refused)
            for header in HEADERS
        ),
        *(
            Framing(f"length {length!r}", _post(b"Content-Length: %s\r\n" % length, HOLD + INNER), refused)
            for length in LENGTHS
        ),
        *(
            Framing(
                f"coding {coding!r}",
                _post(b"Transfer-Encoding: %s\r\n" % coding, chunked(HOLD) + INNER),
                refused,
            )
            for coding in CODINGS
        ),
        *(Framing(f"chunk {chunk[:20]!r}", _post(_CHUNKED, chunk + INNER), refused) for chunk in CHUNKS),
        # Two ideas of where a request ends.
        Framing(
            "length and chunked", _post(b"Content-Length: 24\r\n" + _CHUNKED, chunked(HOLD) + INNER), refused
        ),
        Framing(
            "chunked and length", _post(_CHUNKED + b"Content-Length: 3\r\n", b"0\r\n\r\n" + INNER), refused
        ),
        Framing("two lengths", _post(b"Content-Length: 24\r\nContent-Length: 25\r\n", HOLD + INNER), refused),
        Framing("the same length twice", _post(b"Content-Length: 24\r\n" * 2, HOLD + INNER), refused),
        Framing(
            "two codings",
            _post(_CHUNKED + b"Transfer-Encoding: identity\r\n", chunked(HOLD) + INNER),
            refused,
        ),
        Framing(
            "folded coding", _post(b"Transfer-Encoding:\r\n chunked\r\n", chunked(HOLD) + INNER), refused
        ),
        Framing(
            "coding by a bare line feed",
            _post(b"X: y\nTransfer-Encoding: chunked\r\n", chunked(HOLD) + INNER),
            refused,
        ),
        Framing(
            "coding in HTTP/1.0",
            request(b"POST", b"/api/holds", JSON + _CHUNKED, version=b"1.0") + INNER,
            refused,
        ),
        Framing("a request in a GET's body", request(b"GET", b"/healthz", body=INNER) + _LAST, (200, 200)),
        Framing(
            "a request in a HEAD's chunks",
            b"GET /healthz HTTP/1.1\r\n" + HOST + _CHUNKED + b"\r\n" + chunked(INNER) + _LAST,
            (200, 200),
        ),
        Framing(
            "a request in a refused body", request(b"POST", b"/nowhere", JSON, INNER) + _LAST, (404, 200)
        ),
        Framing(
            "a request in a body too large",
            request(b"POST", b"/api/holds", JSON, INNER * 200) + _LAST,
            (413, 200),
        ),
        Framing(
            "a request in a trailer",
            _post(_CHUNKED, chunked(b"{", end=b"0\r\nX: POST /api/holds\r\n\r\n")) + _LAST,
            (400, 200),
        ),
        Framing(
            "a request after an upgrade to h2c",
            request(b"GET", b"/healthz", _H2C) * 2 + _LAST,
            (200, 200, 200),
        ),
        Framing(
            "a request in a body, after an upgrade to h2c",
            request(b"POST", b"/nowhere", JSON + _H2C, INNER) + _LAST,
            (404, 200),
        ),
        Framing(
            "a request in chunks, after an upgrade to h2c",
            _post(_H2C + _CHUNKED, chunked(INNER), b"/nowhere") + _LAST,
            (404, 200),
        ),
        Framing(
            "a hold that would rather be h2c, as Java's client sends it",
            request(b"POST", b"/api/holds", JSON + _H2C, HOLD) * 2 + _LAST,
            (201, 201, 200),
        ),
        Framing("a websocket", request(b"GET", b"/healthz", _WEBSOCKET), (200,)),
        # Right, but seldom seen.
        Framing("HTTP/1.0", request(b"GET", b"/healthz", version=b"1.0"), (200,)),
        Framing(
            "in absolute form",
            _get(b"GET http://shop.example/healthz HTTP/1.1", HOST + b"Connection: close\r\n"),
            (200,),
        ),
        Framing("empty lines before", b"\r\n\r\n" + _LAST, (200,)),
        Framing("a pipeline", request(b"GET", b"/healthz") * 50 + _LAST, (200,) * 51),
        Framing(
            "a hold, then garbage",
            request(b"POST", b"/api/holds", JSON, HOLD) * 2 + b"\x00\r\n\r\n",
            (201, 201, 400),
        ),
        Framing(
            "holds, then half a coding",
            request(b"POST", b"/api/holds", JSON, HOLD) * 2 + _post(_CHUNKED, b"x\r\n"),
            (201, 201, 400),
        ),
        Framing(
            "garbage in a body that was refused",
            _post(_CHUNKED, b"5000\r\n" + b"[" * 0x5000 + b"\r\nx\r\n", b"/nowhere"),
            (400,),
        ),
        Framing(
            "a pipeline, then garbage",
            request(b"GET", b"/healthz") * 3 + b"\x00\r\n\r\n",
            (200, 200, 200, 400),
        ),
        Framing(
            "expects",
            request(b"POST", b"/api/holds", JSON + b"Expect: 100-continue\r\nConnection: close\r\n", HOLD),
            (201,),
        ),
        Framing(
            "chunk by chunk",
            _post(_CHUNKED + b"Connection: close\r\n", chunked(*(HOLD[n : n + 1] for n in range(len(HOLD))))),
            (201,),
        ),
        Framing(
            "chunks with extensions",
            _post(_CHUNKED + b"Connection: close\r\n", b'18;a=b;c="d"\r\n' + HOLD + b"\r\n0;x\r\n\r\n"),
            (201,),
        ),
        # Too much.
        Framing("a long header", _get(headers=HOST + b"Cookie: " + b"x" * 100_000 + b"\r\n"), (431,)),
        Framing("many headers", _get(headers=HOST + b"X: 1\r\n" * 20_000), (431,)),
        Framing("a long target", _get(b"GET /" + b"x" * 100_000 + b" HTTP/1.1"), (431,)),
        Framing(
            "an endless body", _post(b"Connection: close\r\n" + _CHUNKED, chunked(*[b"[" * 4096] * 8)), (413,)
        ),
        Framing(
            "a long chunk extension",
            _post(b"Connection: close\r\n" + _CHUNKED, b"1;" + b"x" * 200_000 + b"\r\n{\r\n0\r\n\r\n"),
            (400,),
        ),
        # Less than a whole request: nothing is owed.
        Framing("nothing", b"", (), closes=False),
        Framing("half a line", b"GET /heal", (), closes=False),
        Framing("half a head", b"GET /healthz HTTP/1.1\r\nHost: x\r\nX-", (), closes=False),
        Framing("half a body", _post(b"Content-Length: 24\r\n", b'{"product_id":2,'), (), closes=False),
        Framing("half a chunk", _post(_CHUNKED, b"18\r\n" + b'{"product_id":2,'), (), closes=False),
    ]


# What stands in a body where something sane should.
JSON_VALUES = [
    b"", b"null", b"true", b"false", b"0", b"-0", b"-1", b"1", b"1.0", b"1e0", b"1E400", b"-1e400", b"1e-400",
    b"NaN", b"Infinity", b"-Infinity", b"01", b"+1", b".5", b"1.", b"0x1", b"1_0", b"2147483647",
    b"2147483648",
    b"9007199254740991", b"9007199254740992", b"9223372036854775807", b"9223372036854775808", b"9" * 400,
    b"9" * 5000, b"[]", b"{}", b"[1]", b'{"a":1}', b'""', b'"1"', b'"success"', b'"\\ud800"', b'"\\u0000"',
    b'"\\x"', b'"\t"', b'"\x00"', b'"\xff"', b'"\xed\xa0\x80"', b'"\xf0\x9f\xa6\xb6"', b'"\\ud83e\\uddb6"',
    b"'1'", b"[" * 63 + b"]" * 63, b"[" * 65 + b"]" * 65, b"[" * 5000 + b"]" * 5000, b"[" * 8000,
    b'{"a":' * 1000 + b"1" + b"}" * 1000, b'{"a":1,"a":2}', b'"' + b"x" * 15_000 + b'"',
    b'"' + b"x" * 17_000 + b'"',
    b"nul", b"tru", b"//", b"/**/1", b"1 2", b"\xef\xbb\xbf1", b"\\u0031", b'"99.00"', b'"USD"', b'"NaN"',
]  # fmt: skip
TYPES = [
    b"application/json", b"application/json; charset=utf-8", b"application/json;charset=utf-16",
    b"text/plain", b"",
    b"application/x-www-form-urlencoded", b"multipart/form-data; boundary=x", b"application/json, text/plain",
    b"application/json;;;", b"*/*", b"application/\xff", b"x" * 5000, b"application/json; charset=",
]  # fmt: skip
SEGMENTS = [
    b"", b"0", b"1", b"-1", b"+1", b"01", b"1.0", b"1e3", b"%31", b"%00", b"%FF", b"%C0%AF", b"%", b"%zz",
    b"..",
    b"%2e%2e%2f", b"1;drop", b"'", b"9007199254740991", b"9007199254740992", b"9223372036854775807",
    b"9223372036854775808", b"9" * 5000, b"%D9%A3", b"null", b"{}", b"$(id)", b"*", b"a" * 3000, b"1/",
    b"//1",
]  # fmt: skip
PATHS = [
    b"/api/products", b"/api/products/", b"/api/holds", b"/api/holds/", b"/api/orders", b"/api/orders/",
    b"/api/payments/webhook", b"/healthz", b"/readyz", b"/openapi.json", b"/docs", b"/", b"/problems/",
    b"/api/",
]  # fmt: skip
METHODS = [
    b"GET",
    b"HEAD",
    b"POST",
    b"PUT",
    b"PATCH",
    b"DELETE",
    b"OPTIONS",
    b"TRACE",
    b"PROPFIND",
    b"CONNECT",
]
PARAMETERS = [b"after", b"limit", b"hold_id", b"x", b"", b"%00", b"limit%5B%5D"]
FIELDS = [
    b"Idempotency-Key", b"X-Request-ID", b"webhook-id", b"webhook-timestamp", b"webhook-signature", b"Accept",
    b"Accept-Encoding", b"If-None-Match", b"Range", b"Cookie", b"X-Forwarded-For", b"X-HTTP-Method-Override",
    b"Content-Encoding", b"Origin", b"Forwarded", b"Last-Event-ID", b"Connection",
]  # fmt: skip


class HostileRequests:
    """Makes up requests.

    :param rng: the same one makes the same requests
    """

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng

    def well_framed(self) -> tuple[bytes, bool]:
        """A request whose end cannot be mistaken, and whether it is a HEAD."""
        rng = self._rng
        if rng.random() < 0.7:
            method, target, body = self._body()
            content_type = rng.choice(TYPES) if rng.random() < 0.1 else TYPES[0]
            headers = b"Content-Type: %s\r\n" % content_type
        else:
            method, target, body, headers = rng.choice(METHODS), self._target(), None, b""
            if rng.random() < 0.2:
                body = rng.choice(MALFORMED)
            if method == b"CONNECT":
                target = b"shop.example:80"
        headers += b"".join(self._field() for _ in range(rng.choice((0, 0, 0, 1, 2))))
        return request(method, target, headers, body), method == b"HEAD"

    def spoilt(self) -> bytes:
        """A stream that has been damaged somewhere, and enough behind it that it must come to an end."""
        rng = self._rng
        # No HEAD: damaged, nobody knows whether its answer has a body.
        whole = self.well_framed()[0].replace(b"HEAD ", b"GET ", 1)
        stream = bytearray(rng.choice((whole, rng.choice(_FRAMINGS).data[:4000])))
        for _ in range(rng.choice((1, 1, 2, 5))):
            self._spoil(stream)
        return bytes(stream) + _LAST + b"\x00" * BEYOND_ANY_BODY

    def _spoil(self, stream: bytearray) -> None:
        rng = self._rng
        # The head is where it hurts.
        end = stream.find(b"\r\n\r\n") + 4 if rng.random() < 0.8 else len(stream)
        at = rng.randrange(max(1, min(end, len(stream))))
        match rng.randrange(6):
            case 0:
                stream[at : at + 1] = bytes([rng.randrange(256)])
            case 1:
                stream[at:at] = rng.choice(
                    (b"\r\n", b"\n", b"\r", b"\x00", b" ", b"\t", b":", b"\xff", b"\r\n ")
                )
            case 2:
                del stream[at : at + rng.choice((1, 2, 10))]
            case 3:
                del stream[at:]
            case 4:
                stream[at:at] = stream[at : at + rng.choice((5, 50))] * rng.choice((1, 3))
            case 5:
                stream[at:at] = b"\r\n%s: %s\r\n" % (rng.choice(FIELDS), rng.choice(LENGTHS))

    def _body(self) -> tuple[bytes, bytes, bytes]:
        """Method, target, and a body with something wrong in it, or nothing."""
        rng = self._rng
        kind = rng.choice(("hold", "order", "webhook", "webhook"))
        number = rng.randrange(10**6)
        members = {
            "hold": {b"product_id": b"1", b"qty": b"%d" % rng.choice((1, 2, 3))},
            "order": {b"hold_id": b"%d" % rng.choice(HOLD_IDS)},
            "webhook": {
                b"idempotency_key": b'"pay %d"' % number,
                b"order_id": b"%d" % rng.choice((1, 2, number)),
                b"status": b'"%s"' % rng.choice((b"success", b"failed", b"cancelled")),
            },
        }[kind]
        target = {"hold": b"/api/holds", "order": b"/api/orders", "webhook": b"/api/payments/webhook"}[kind]
        roll = rng.random()
        if roll < 0.15:
            table = {"hold": [data for data, _ in INVALID_HOLDS], "order": MALFORMED, "webhook": _payloads()}[
                kind
            ]
            return b"POST", target, rng.choice([*MALFORMED, *table])
        if roll < 0.6:
            members[rng.choice(list(members))] = self._json_value()
        elif roll < 0.7:
            members[b"amount"] = self._json_value()
            members[b"currency"] = rng.choice((b'"USD"', self._json_value()))
        elif roll < 0.75:
            del members[rng.choice(list(members))]
        pairs = [b'"%s":%s' % pair for pair in members.items()]
        if roll > 0.95:
            pairs.append(rng.choice(pairs))
        elif roll > 0.9:
            pairs.append(rng.choice(UNKEEPABLE_MEMBERS)[0])
        elif roll > 0.85:
            pairs.append(
                b'"%s":%s'
                % (rng.choice((b"x", b"", b"\\u0000", b"__proto__", b"a" * 9000)), self._json_value())
            )
        rng.shuffle(pairs)
        body = bytearray(b"{" + b",".join(pairs) + b"}")
        if rng.random() < 0.15:
            self._spoil(body)
        return b"POST", target, bytes(body)

    def _json_value(self) -> bytes:
        rng = self._rng
        roll = rng.random()
        if roll < 0.6:
            return rng.choice(JSON_VALUES)
        if roll < 0.8:
            return json.dumps(rng.choice(HOSTILE["text"]), ensure_ascii=rng.random() < 0.5).encode()[:16_500]
        if roll < 0.9:
            return rng.choice(PAYLOADS).encode()[:16_500]
        return b"%d" % (rng.getrandbits(rng.choice((8, 31, 32, 53, 63, 64, 200))) * rng.choice((1, -1)))

    def _target(self) -> bytes:
        rng = self._rng
        path = rng.choice(PATHS)
        if path.endswith(b"/") and rng.random() < 0.9:
            path += rng.choice((rng.choice(SEGMENTS), b"%d" % rng.choice(HOLD_IDS)))
        query = b"&".join(
            b"%s=%s" % (rng.choice(PARAMETERS), rng.choice(SEGMENTS))
            for _ in range(rng.choice((0, 0, 1, 1, 2)))
        )
        return path + (b"?" + query if query else b"")

    def _field(self) -> bytes:
        """A header that HTTP can carry, whatever the application makes of it."""
        rng = self._rng
        value = rng.choice(
            (
                *SEGMENTS,
                b"pay_1",
                b"a b",
                b"\xc3\xa9",
                b"\xff",
                b"x" * 300,
                b"",
                b"bytes=0-1",
                b"v1,Zm9v",
                b"close",
                b"DELETE",
            )
        )
        name = rng.choice(FIELDS)
        return b"" if name == b"Connection" else b"%s: %s\r\n" % (name, value)


def _payloads() -> list[bytes]:
    return [payload.encode() for payload in PAYLOADS]


_FRAMINGS = framings()
