"""Request metrics, and the access log.

A line for every request would cost more than it is worth at 10,000 requests a second. A request is logged if
it was answered 5xx, took a second, was retried, was a replay, or was a webhook that was refused (4xx); all
others only at level debug. Lines have no path, because the id of a hold is its buyer's proof of ownership.
"""

import logging
from time import perf_counter
from typing import Any

from falcon.asgi import Request, Response
from msgspec import json

from api.context import REQUEST_STARTED
from api.problems import MEDIA_TYPE
from api.telemetry import metrics
from api.telemetry.request_id import HEADER

log = logging.getLogger("flashsale.access")

SLOW_REQUEST_SECONDS = 1.0
PAYMENTS_PATH = "/api/payments/"
"""what is refused below it is a webhook, also if the path does not exist: a mistyped URL loses payments"""


class AccessLog:
    """Middleware that measures every response, and logs some."""

    def __init__(self) -> None:
        self._logs_all = False

    async def process_startup(self, scope: Any, event: Any) -> None:
        self._logs_all = log.isEnabledFor(logging.DEBUG)

    async def process_response(self, req: Request, resp: Response, resource: Any, succeeded: bool) -> None:
        try:
            seconds = perf_counter() - req.scope["state"][REQUEST_STARTED]
        except KeyError:  # served by another server's protocol
            seconds = 0.0
        status = str(resp.status)
        metrics.responses.observe(req.method, req.uri_template, status, seconds)
        notes = vars(req.context)
        if "4" <= status < "5" and req.path.startswith(PAYMENTS_PATH):
            self._log_refused_webhook(req, resp, status, seconds)
        elif notes or seconds >= SLOW_REQUEST_SECONDS or status >= "5" or self._logs_all:
            self._log(req, resp, status, seconds, notes)

    def _log_refused_webhook(self, req: Request, resp: Response, status: str, seconds: float) -> None:
        is_problem = resp.content_type == MEDIA_TYPE and resp.data
        problem = json.decode(resp.data or b"") if is_problem else {"code": "", "detail": ""}
        metrics.webhooks_refused.by_labels[(problem["code"],)] += 1
        fields = _fields(req, resp, status, seconds)
        fields |= {"code": problem["code"], "detail": problem["detail"][:200]}
        log.warning("webhook refused", extra=fields)

    def _log(self, req: Request, resp: Response, status: str, seconds: float, notes: dict[str, Any]) -> None:
        if "replayed" in notes:
            metrics.replays.by_labels[(req.uri_template or "",)] += 1
        if status >= "5":
            level, message = logging.WARNING, "request failed"
        elif seconds >= SLOW_REQUEST_SECONDS:
            level, message = logging.WARNING, "slow request"
        elif "retries" in notes:
            level, message = logging.INFO, "request was retried"
        elif "replayed" in notes:
            level, message = logging.INFO, "request was a replay"
        else:
            level, message = logging.DEBUG, "request served"
        if not log.isEnabledFor(level):
            return
        fields = _fields(req, resp, status, seconds)
        if resp.content_type == MEDIA_TYPE and resp.data:
            fields["code"] = json.decode(resp.data)["code"]
        if "retries" in notes:
            contended = perf_counter() - notes["contended_at"]
            fields |= {"retries": notes["retries"], "contended_ms": round(contended * 1000, 1)}
        if "replayed" in notes:
            fields["replayed"] = True
        log.log(level, message, extra=fields)


def _fields(req: Request, resp: Response, status: str, seconds: float) -> dict[str, Any]:
    return {
        "request_id": resp.get_header(HEADER),
        "method": req.method,
        "route": req.uri_template,
        "status": int(status[:3]),
        "duration_ms": round(seconds * 1000, 1),
    }
