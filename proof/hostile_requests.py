"""Random hostile HTTP requests: well framed with hostile contents, or corrupted streams."""

import json
import random

from proof.hostile_framings import LAST, LENGTHS, framings
from proof.raw_http import request
from tests.support.hostile_arguments import HOSTILE, PAYLOADS
from tests.support.hostile_bodies import INVALID_HOLDS, MALFORMED, UNKEEPABLE_MEMBERS

HOLD_IDS = range(1, 501)
"""some of these holds exist"""
PADDING = 20_000
"""bytes; more than a body may have, so that a corrupted Content-Length is always satisfied or too large"""

# Hostile values of a member.
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
METHODS = b"GET HEAD POST PUT PATCH DELETE OPTIONS TRACE PROPFIND CONNECT".split()
PARAMETERS = [b"after", b"limit", b"hold_id", b"x", b"", b"%00", b"limit%5B%5D"]
FIELDS = [
    b"Idempotency-Key", b"X-Request-ID", b"webhook-id", b"webhook-timestamp", b"webhook-signature", b"Accept",
    b"Accept-Encoding", b"If-None-Match", b"Range", b"Cookie", b"X-Forwarded-For", b"X-HTTP-Method-Override",
    b"Content-Encoding", b"Origin", b"Forwarded", b"Last-Event-ID", b"Connection",
]  # fmt: skip
VALUES = [b"pay_1", b"a b", b"\xc3\xa9", b"\xff", b"x" * 300, b"bytes=0-1", b"v1,Zm9v", b"close", b"DELETE"]


class HostileRequests:
    """Generates requests.

    :param rng: the seed of all choices
    """

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng

    def well_framed(self) -> tuple[bytes, bool]:
        """A request with an unambiguous end, and whether it is a HEAD."""
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

    def corrupted(self) -> bytes:
        """A stream with random damage, and enough bytes behind it that its last request is complete."""
        rng = self._rng
        # Not a HEAD: once damaged, its response may have a body or not.
        whole = self.well_framed()[0].replace(b"HEAD ", b"GET ", 1)
        stream = bytearray(rng.choice((whole, rng.choice(_FRAMINGS).data[:4000])))
        for _ in range(rng.choice((1, 1, 2, 5))):
            self._corrupt(stream)
        return bytes(stream) + LAST + b"\x00" * PADDING

    def _corrupt(self, stream: bytearray) -> None:
        rng = self._rng
        # Mostly in the head.
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
        """Method, target, and a body in which something is mostly wrong."""
        rng = self._rng
        kind = rng.choice(("hold", "order", "webhook", "webhook"))
        number = rng.randrange(10**6)
        members = {
            "hold": {b"product_id": b"1", b"qty": b"%d" % rng.choice((1, 2, 3))},
            "order": {b"hold_id": b"%d" % rng.choice(HOLD_IDS)},
            "webhook": {
                b"idempotency_key": b'"pay %d"' % number,
                b"order_id": b"%d" % rng.choice((1, 2, number)),
                b"status": b'"%s"' % rng.choice((b"success", b"failed", b"cancelled", b"declined")),
            },
        }[kind]
        target = {"hold": b"/api/holds", "order": b"/api/orders", "webhook": b"/api/payments/webhook"}[kind]
        roll = rng.random()
        if roll < 0.15:
            payloads = [payload.encode() for payload in PAYLOADS]
            holds = [data for data, _ in INVALID_HOLDS]
            table = {"hold": holds, "order": MALFORMED, "webhook": payloads}[kind]
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
            self._corrupt(body)
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
        """A header that is valid in HTTP, with a hostile value."""
        rng = self._rng
        value = rng.choice((*SEGMENTS, *VALUES))
        name = rng.choice(FIELDS)
        return b"" if name == b"Connection" else b"%s: %s\r\n" % (name, value)


_FRAMINGS = framings()
