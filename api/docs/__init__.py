"""/docs: what /openapi.json says, to read and to try, with no need of anything that is not on this server.

The viewer is Swagger UI, which the PyPI package offapi carries as npm's swagger-ui-dist has it. It is told to
ask nobody else, and the Content-Security-Policy sees to that.
"""

from importlib.metadata import distribution
from pathlib import Path

from falcon.asgi import Request, Response

from api.assets import Asset

_OURS = Path(__file__).parent
_VIEWERS = Path(str(distribution("offapi").locate_file("offapi")))  # to import it would load all of them

# As on the page at /, but for the pictures that Swagger UI's style sheet has in itself.
CONTENT_SECURITY_POLICY = (
    "default-src 'self'; img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


class _Page(Asset):
    async def on_get(self, req: Request, resp: Response) -> None:
        await super().on_get(req, resp)
        resp.set_header("Content-Security-Policy", CONTENT_SECURITY_POLICY)


def docs_routes() -> dict[str, Asset]:
    """The documentation's files by the path at which each is found."""
    return {
        "/docs": _Page(_OURS / "index.html"),
        "/docs/docs.css": Asset(_OURS / "docs.css"),
        "/docs/start.js": Asset(_OURS / "start.js"),
        "/docs/swagger-ui.css": Asset(_VIEWERS / "swagger_style.css"),
        "/docs/swagger-ui-bundle.js": Asset(_VIEWERS / "swagger_bundle.js"),
    }
