"""CORS: front ends of other origins that may use the API from a browser (Fetch Standard, 3.3).

No credentials: the API knows no cookies, and a page can send only a token that it has. So an origin's pages
may do no more than any client that can reach the server. What the list keeps out are pages that use their
visitors' browsers.
"""

import re
from collections.abc import Collection, Sequence
from typing import Any

from falcon import CORSMiddleware

ANY_ORIGIN = "*"

ALLOWED_HEADERS = (
    "Authorization, Content-Type, Idempotency-Key, Last-Event-ID, X-Request-ID, traceparent, tracestate"
)
"""of requests; a browser sends no others from another origin"""
EXPOSED_HEADERS = "Location, Link, Idempotency-Replayed, Retry-After, X-Request-ID"
"""of responses; a browser hides others from a page of another origin"""

_origin_in_head = re.compile(rb"\r\norigin:([^\r\n]*)", re.IGNORECASE).search


class CrossOrigin(CORSMiddleware[Any, Any]):
    """Falcon's middleware, with `Vary`, a fixed list of request headers, and routes that stay closed.

    :param origins: that are allowed; `("*",)`: all
    :param closed: templates of routes that pages of other origins have no business with
    """

    def __init__(self, origins: Sequence[str], closed: Collection[str] = ()) -> None:
        is_open = tuple(origins) == (ANY_ORIGIN,)
        super().__init__(ANY_ORIGIN if is_open else origins, EXPOSED_HEADERS)
        self._varies = not is_open
        self._closed = closed

    def process_response(self, req: Any, resp: Any, resource: object, req_succeeded: bool) -> None:
        if req.uri_template in self._closed:  # guard: webhook-closed
            return
        if self._varies:
            resp.append_header("Vary", "Origin")
        super().process_response(req, resp, resource, req_succeeded)
        # Falcon repeats what the client asked for, which Falcon itself rejects unless it is ASCII.
        if resp.get_header("Access-Control-Allow-Headers") is not None:  # guard: fixed-allowed-headers
            resp.set_header("Access-Control-Allow-Headers", ALLOWED_HEADERS)

    def headers(self, origin: bytes | None) -> dict[str, str]:
        """Headers of a response that does not come from Falcon.

        :param origin: the request's header Origin
        """
        if self.allow_origins == ANY_ORIGIN:
            return {
                "access-control-allow-origin": ANY_ORIGIN,
                "access-control-expose-headers": EXPOSED_HEADERS,
            }
        headers = {"vary": "Origin"}
        if origin is not None and (text := origin.decode("latin-1")) in self.allow_origins:
            headers["access-control-allow-origin"] = text
            headers["access-control-expose-headers"] = EXPOSED_HEADERS
        return headers


def origin_of(data: bytes) -> bytes | None:
    """The header Origin in the beginning of a request that has not been parsed."""
    found = _origin_in_head(data.partition(b"\r\n\r\n")[0])
    return found and found[1].strip()
