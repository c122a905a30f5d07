"""/docs, and the pages of the problems: everything they need comes from this server."""

import html
import re
from urllib.parse import urljoin

import httpx
import pytest

from api.openapi.document import kinds
from api.openapi.pages import docs_routes
from api.problems import Kind, type_of


def test_the_documentation_asks_no_other_server(client: httpx.Client) -> None:
    page = client.get("/docs")
    assert (page.status_code, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
    policy = page.headers["content-security-policy"]
    assert policy.startswith("default-src 'self'; img-src 'self' data:;")
    assert "//" not in policy
    assert "unsafe" not in policy
    needed = re.findall(r'(?:src|href)="([^"]+)"', page.text)
    assert all(path.startswith("/") and not path.startswith("//") for path in needed)
    for path in needed:
        assert client.get(path).status_code == 200, path
    assert "SwaggerUIBundle" in client.get("/docs/swagger-ui-bundle.js").text
    assert 'url: "/openapi.json"' in client.get("/docs/start.js").text


def test_what_a_browser_has_is_not_sent_again(client: httpx.Client) -> None:
    for path in docs_routes():
        first = client.get(path)
        again = client.get(path, headers={"If-None-Match": first.headers["etag"]})
        assert (again.status_code, again.content) == (304, b""), path
        assert client.head(path).headers["content-length"] == str(len(first.content)), path


@pytest.mark.parametrize("kind", kinds(), ids=lambda kind: kind.code)
def test_a_problems_type_leads_to_what_it_means(client: httpx.Client, kind: Kind) -> None:
    page = client.get(type_of(kind))
    assert (page.status_code, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
    told = html.unescape(page.text)
    for words in (kind.title, kind.code, f"HTTP {kind.status}", kind.detail):
        assert words in told
    assert "$" not in told
    for path in re.findall(r'(?:src|href)="([^"]+)"', page.text):
        assert client.get(path).status_code == 200, path
    assert ("Retry-After" in told) == (kind.retry_after is not None)


def test_the_type_of_an_answer_can_be_followed(client: httpx.Client) -> None:
    refused = client.get("/api/products/999999")
    told = client.get(urljoin(str(refused.url), refused.json()["type"])).text
    assert "<h1>Product not found</h1>" in told
    assert "GET /api/products/{product_id}" in told and "POST /api/holds" in told
    assert "any request" not in told
    assert client.get("/problems/no_such_problem").json()["code"] == "not_found"
