"""Bodies of webhooks: how they are read, in bounded memory.

A webhook may be larger than other requests, and is read even where it is too large, because its signature
can be verified only over the whole body: a signed webhook that is refused is kept. What the bodies of a
process use beyond MAX_BODY_BYTES each is limited to MAX_LARGE_BODIES_BYTES in all; small webhooks are always
read.
"""

from types import TracebackType

from falcon.asgi import Request

from api.context import BODY_TRUNCATED
from api.problems import BAD_REQUEST, OVERLOADED, PAYLOAD_TOO_LARGE, Problem
from api.schemas.requests import MAX_BODY_BYTES, check_media_type

MAX_WEBHOOK_BYTES = 256 * 1024  # guard: webhook-body-limit
MAX_READ_BYTES = 1024 * 1024
"""a larger body is refused without being read, and so without its signature being verified"""
MAX_LARGE_BODIES_BYTES = 8 * 1024 * 1024
"""of all bodies larger than MAX_BODY_BYTES that are in memory at once; a further one is answered 503"""

_CHUNK_BYTES = 64 * 1024


class BodyMemory:
    """The memory that large bodies of this process may use."""

    def __init__(self, limit: int = MAX_LARGE_BODIES_BYTES) -> None:
        self._limit = limit
        self.in_use = 0

    def take(self, count: int) -> None:
        """:raises Problem: overloaded"""
        if self.in_use + count > self._limit:  # guard: body-memory
            raise Problem(OVERLOADED)
        self.in_use += count


class WebhookBody:
    """The body of a request; a context manager that returns its memory."""

    __slots__ = ("_memory", "_taken")

    def __init__(self, memory: BodyMemory) -> None:
        self._memory = memory
        self._taken = 0

    def __enter__(self) -> "WebhookBody":
        return self

    def __exit__(
        self, type_: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._memory.in_use -= self._taken

    async def read(self, req: Request) -> bytes:
        """:raises Problem: payload_too_large, overloaded; bad_request if the body is incomplete"""
        if (req.content_length or 0) > MAX_READ_BYTES:
            raise Problem(PAYLOAD_TOO_LARGE)
        data = await req.stream.read(MAX_BODY_BYTES + 1)
        if len(data) > MAX_BODY_BYTES:
            data = await self._read_rest(req, data)
        if BODY_TRUNCATED in req.scope.get("state", ()):
            raise Problem(BAD_REQUEST)
        return data

    async def _read_rest(self, req: Request, chunk: bytes) -> bytes:
        chunks = []
        while chunk:
            self._memory.take(len(chunk))
            self._taken += len(chunk)
            if self._taken > MAX_READ_BYTES:
                raise Problem(PAYLOAD_TOO_LARGE)
            chunks.append(chunk)
            chunk = await req.stream.read(_CHUNK_BYTES)
        return b"".join(chunks)


def check_webhook(req: Request, data: bytes) -> None:
    """:raises Problem: unsupported_media_type, payload_too_large"""
    check_media_type(req.content_type)
    if len(data) > MAX_WEBHOOK_BYTES:
        raise Problem(PAYLOAD_TOO_LARGE)
