"""/docs: what /openapi.json says, to read and to try, with no need of anything that is not on this server;
and a page for each problem, at the path that is its `type`.

The viewer is Swagger UI, which the PyPI package offapi carries as npm's swagger-ui-dist has it. It is told to
ask nobody else, and the Content-Security-Policy sees to that.
"""

from html import escape
from importlib.metadata import distribution
from pathlib import Path
from string import Template

from falcon.asgi import Request, Response

from api.openapi.document import answered_by, kinds
from api.problems import Kind, type_of
from api.static_files import Asset

_OURS = Path(__file__).parent / "static"
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
        "/docs": _Page.read(_OURS / "index.html"),
        "/docs/docs.css": Asset.read(_OURS / "docs.css"),
        "/docs/problem.css": Asset.read(_OURS / "problem.css"),
        "/docs/start.js": Asset.read(_OURS / "start.js"),
        "/docs/swagger-ui.css": Asset.read(_VIEWERS / "swagger_style.css"),
        "/docs/swagger-ui-bundle.js": Asset.read(_VIEWERS / "swagger_bundle.js"),
    }


def problem_routes() -> dict[str, Asset]:
    """A page for each problem, by its `type`: documentation for people (RFC 9457, 3.1.1)."""
    page = Template((_OURS / "problem.html").read_text())
    return {type_of(kind): Asset(page.substitute(_words(kind)).encode(), ".html") for kind in kinds()}


def _words(kind: Kind) -> dict[str, str]:
    again = (
        ""
        if kind.retry_after is None
        else f" Try again after {kind.retry_after} s (<code>Retry-After</code>)."
    )
    calls = "".join(
        f"<li><code>{escape(f'{method} {path}')}</code></li>\n" for method, path in answered_by(kind)
    )
    return {
        "title": escape(kind.title),
        "code": kind.code,
        "status": str(kind.status),
        "detail": escape(kind.detail) + again,
        "calls": calls or "<li>any request</li>\n",
    }
