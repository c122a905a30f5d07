"""Static files, read once and served from memory; and those of the page at /."""

import hashlib
from pathlib import Path
from typing import Self

from falcon import HTTP_304
from falcon.asgi import Request, Response

PAGE = Path(__file__).parent / "live_page"

_MEDIA_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}

# No other origin, nothing inline, no framing, and forms submit nowhere.
CONTENT_SECURITY_POLICY = "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"


class Asset:
    """A file, served with an ETag for conditional requests (RFC 9110, 13.1.2).

    :param data: its content
    :param suffix: of its name; determines the media type
    """

    def __init__(self, data: bytes, suffix: str) -> None:
        self._data = data
        self._media_type = _MEDIA_TYPES[suffix]
        self._etag = hashlib.sha256(self._data).hexdigest()[:32]

    @classmethod
    def read(cls, path: Path) -> Self:
        """The current content of the file at this path."""
        return cls(path.read_bytes(), path.suffix)

    async def on_get(self, req: Request, resp: Response) -> None:
        resp.etag = self._etag
        # Cached, but revalidated each time: a new version is visible at once.
        resp.set_header("Cache-Control", "no-cache")
        resp.set_header("X-Content-Type-Options", "nosniff")
        resp.set_header("Referrer-Policy", "no-referrer")
        resp.set_header("Content-Security-Policy", CONTENT_SECURITY_POLICY)
        known = req.if_none_match or []
        if any(etag == "*" or etag == self._etag for etag in known):
            resp.status = HTTP_304
            return
        resp.content_type = self._media_type
        resp.data = self._data


def page_routes() -> dict[str, Asset]:
    """The page's files by path."""
    return {
        "/": Asset.read(PAGE / "index.html"),
        **{
            f"/page/{path.name}": Asset.read(path)
            for path in sorted(PAGE.iterdir())
            if path.suffix != ".html"
        },
    }
