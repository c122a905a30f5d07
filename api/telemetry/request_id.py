"""X-Request-ID on every response: the client's if it is valid, otherwise a new one."""

import re
import secrets
from itertools import count
from typing import Any

from falcon.asgi import Request, Response

from api.context import REQUEST

HEADER = "X-Request-ID"

PATTERN = r"[A-Za-z0-9._-]{1,128}"

_is_valid = re.compile(PATTERN).fullmatch


class RequestIds:
    """Middleware. New ids are unique: a random part for the process, and a counter."""

    def __init__(self) -> None:
        self._count = count(1)
        self._process = ""

    async def process_request(self, req: Request, resp: Response) -> None:
        given = req.get_header(HEADER)
        resp.set_header(HEADER, given if given and _is_valid(given) else self.new())
        REQUEST.set(req.context)
        # Stock and states are exact only at the instant of the response.
        resp.set_header("Cache-Control", "no-store")

    async def process_request_ws(self, req: Request, ws: Any) -> None:
        """Required by Falcon; there are no websockets."""

    def new(self) -> str:
        if not self._process:
            self._process = secrets.token_hex(8)  # not in __init__, which may run before a fork
        return f"{self._process}-{next(self._count)}"
