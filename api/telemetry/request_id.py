"""X-Request-ID on every response: the caller's, if it sent a sane one."""

import re
import secrets
from itertools import count
from typing import Any

from falcon.asgi import Request, Response

from api.telemetry.batch_metrics import REQUEST

HEADER = "X-Request-ID"

SANE = r"[A-Za-z0-9._-]{1,128}"

_is_sane = re.compile(SANE).fullmatch


class RequestIds:
    """Middleware. An id made here is unique: a random part for the process, and a count."""

    def __init__(self) -> None:
        self._count = count(1)
        self._process = ""

    async def process_request(self, req: Request, resp: Response) -> None:
        given = req.get_header(HEADER)
        resp.set_header(HEADER, given if given and _is_sane(given) else self.new())
        REQUEST.set(req.context)
        # What is true of a sale is true for an instant.
        resp.set_header("Cache-Control", "no-store")

    async def process_request_ws(self, req: Request, ws: Any) -> None:
        """There are no websockets; Falcon wants to be told."""

    def new(self) -> str:
        if not self._process:
            self._process = secrets.token_hex(8)  # not in __init__: a process may fork after it
        return f"{self._process}-{next(self._count)}"
