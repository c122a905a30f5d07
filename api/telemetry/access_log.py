"""What is counted of each request, and which requests are in the log.

At 10,000 requests a second a line each would cost more than it tells. So a request is in the log if somebody
may want to know why: it was answered 5xx, took a second, had to be sent again, or repeated an earlier one.
All others are only counted, unless the log level is debug. No line has a path: the id of a hold is its
buyer's proof.
"""

import logging
from time import perf_counter
from typing import Any

from falcon.asgi import Request, Response
from msgspec import json

from api.problems import MEDIA_TYPE
from api.server.http_protocol import BEGAN
from api.telemetry import metrics
from api.telemetry.request_id import HEADER

log = logging.getLogger("flashsale.access")

SLOW = 1.0
"""seconds"""


class Access:
    """Middleware that looks at each answer."""

    def __init__(self) -> None:
        self._tell_all = False

    async def process_startup(self, scope: Any, event: Any) -> None:
        self._tell_all = log.isEnabledFor(logging.DEBUG)

    async def process_response(self, req: Request, resp: Response, resource: Any, succeeded: bool) -> None:
        try:
            seconds = perf_counter() - req.scope["state"][BEGAN]
        except KeyError:  # it came through another server's protocol
            seconds = 0.0
        metrics.answered.observe(req.method, req.uri_template, resp.status, seconds)
        remarks = vars(req.context)
        if remarks or seconds >= SLOW or resp.status >= "5" or self._tell_all:
            self._tell(req, resp, seconds, remarks)

    def _tell(self, req: Request, resp: Response, seconds: float, remarks: dict[str, Any]) -> None:
        if "replayed" in remarks:
            metrics.replays.of[(req.uri_template,)] += 1
        if resp.status >= "5":
            level, what = logging.WARNING, "a request was not served"
        elif seconds >= SLOW:
            level, what = logging.WARNING, "a request was slow"
        elif "sent_again" in remarks:
            level, what = logging.INFO, "a request had to be sent again"
        elif "replayed" in remarks:
            level, what = logging.INFO, "a request was a replay"
        else:
            level, what = logging.DEBUG, "a request was served"
        if not log.isEnabledFor(level):
            return
        fields: dict[str, Any] = {
            "request_id": resp.get_header(HEADER),
            "method": req.method,
            "route": req.uri_template,
            "status": int(resp.status[:3]),
            "duration_ms": round(seconds * 1000, 1),
        }
        if resp.content_type == MEDIA_TYPE:
            fields["code"] = json.decode(resp.data)["code"]
        if "sent_again" in remarks:
            waited = perf_counter() - remarks["contended_at"]
            fields |= {"sent_again": remarks["sent_again"], "waited_ms": round(waited * 1000, 1)}
        if "replayed" in remarks:
            fields["replayed"] = True
        log.log(level, what, extra=fields)
