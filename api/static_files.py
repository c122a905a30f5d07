"""The page at / and what it is made of: files that are read once and sent from memory."""

import hashlib
from pathlib import Path
from typing import Self

from falcon import HTTP_304
from falcon.asgi import Request, Response

PAGE = Path(__file__).parent / "page"

_MEDIA_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}

# Nothing comes from elsewhere, nothing is inline, nobody frames the page, and no form sends anything.
CONTENT_SECURITY_POLICY = "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"


class Asset:
    """A file, with an ETag by which a browser that has it already is told so (RFC 9110, 13.1.2).

    :param data: the whole of it
    :param suffix: of its name, which says what it is
    """

    def __init__(self, data: bytes, suffix: str) -> None:
        self._data = data
        self._media_type = _MEDIA_TYPES[suffix]
        self._etag = hashlib.sha256(self._data).hexdigest()[:32]

    @classmethod
    def read(cls, path: Path) -> Self:
        """The file at this path, as it is here and now."""
        return cls(path.read_bytes(), path.suffix)

    async def on_get(self, req: Request, resp: Response) -> None:
        resp.etag = self._etag
        # Kept, but asked for again each time: a new version is seen at once.
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
    """The page's files by the path at which each is found."""
    return {
        "/": Asset.read(PAGE / "index.html"),
        **{
            f"/page/{path.name}": Asset.read(path)
            for path in sorted(PAGE.iterdir())
            if path.suffix != ".html"
        },
    }
