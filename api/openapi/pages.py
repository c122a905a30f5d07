"""/docs: Swagger UI for /openapi.json; and a page for each problem type, at the path that is its `type`.

Swagger UI comes from the PyPI package offapi, which contains the files of npm's swagger-ui-dist. It is
configured to contact no other server, and the Content-Security-Policy enforces that.
"""

from html import escape
from importlib.metadata import distribution
from pathlib import Path
from string import Template

from falcon.asgi import Request, Response

from api.openapi.components import operations_with, problem_types
from api.problems import ProblemType, type_uri
from api.static_files import PAGE, Asset

_STATIC = Path(__file__).parent / "static"
_SWAGGER_UI = Path(str(distribution("offapi").locate_file("offapi")))  # importing it would load all viewers

# As in api/static_files.py, and data: for the pictures in Swagger UI's style sheet.
CONTENT_SECURITY_POLICY = (
    "default-src 'self'; img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


_MORE = """<nav aria-label="This server"><a href="/docs">All calls and problems</a></nav>
"""


class _Page(Asset):
    async def on_get(self, req: Request, resp: Response) -> None:
        await super().on_get(req, resp)
        resp.set_header("Content-Security-Policy", CONTENT_SECURITY_POLICY)


def docs_routes() -> dict[str, Asset]:
    """The documentation's files by path."""
    return {
        "/docs": _Page.read(_STATIC / "index.html"),
        "/docs/docs.css": Asset.read(_STATIC / "docs.css"),
        "/docs/start.js": Asset.read(_STATIC / "start.js"),
        "/docs/swagger-ui.css": Asset.read(_SWAGGER_UI / "swagger_style.css"),
        "/docs/swagger-ui-bundle.js": Asset.read(_SWAGGER_UI / "swagger_bundle.js"),
    }


def problem_routes(*, with_docs: bool) -> dict[str, Asset]:
    """A page for each problem, by its `type`, and what it is made of: documentation for people (RFC 9457,
    3.1.1).

    :param with_docs: whether there are /docs to lead to
    """
    page = Template((_STATIC / "problem.html").read_text())
    documents = {"more": _MORE if with_docs else ""}
    return {
        **{
            type_uri(type_): Asset(page.substitute(_fields(type_) | documents).encode(), ".html")
            for type_ in problem_types()
        },
        "/problems/problem.css": Asset.read(_STATIC / "problem.css"),
        "/problems/page.css": Asset.read(PAGE / "page.css"),
        "/problems/icon.svg": Asset.read(PAGE / "icon.svg"),
    }


def _fields(type_: ProblemType) -> dict[str, str]:
    retry = f" Retry after {type_.retry_text} (<code>Retry-After</code>)." if type_.retry_after else ""
    calls = "".join(
        f"<li><code>{escape(f'{method} {path}')}</code></li>\n" for method, path in operations_with(type_)
    )
    return {
        "title": escape(type_.title),
        "code": type_.code,
        "status": str(type_.status),
        "detail": escape(type_.detail) + retry,
        "calls": calls or "<li>any request</li>\n",
    }
