"""/docs and the pages of the problem types: all their files come from this server."""

import html
import re
from urllib.parse import urljoin

import httpx
import pytest

from api.openapi.components import problem_types
from api.openapi.pages import docs_routes
from api.problems import ProblemType, type_uri
from tests.support.shared_server import shared_server

shared, postgresql, started, server = shared_server("flashsale_pages", "module")


def test_the_documentation_contacts_no_other_server(client: httpx.Client) -> None:
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


def test_files_that_a_browser_has_cached_are_not_sent(client: httpx.Client) -> None:
    for path in docs_routes():
        first = client.get(path)
        again = client.get(path, headers={"If-None-Match": first.headers["etag"]})
        assert (again.status_code, again.content) == (304, b""), path
        assert client.head(path).headers["content-length"] == str(len(first.content)), path


@pytest.mark.parametrize("type_", problem_types(), ids=lambda type_: type_.code)
def test_a_problems_type_has_a_page(client: httpx.Client, type_: ProblemType) -> None:
    page = client.get(type_uri(type_))
    assert (page.status_code, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
    text = html.unescape(page.text)
    for words in (type_.title, type_.code, f"HTTP {type_.status}", type_.detail):
        assert words in text
    assert "$" not in text
    for path in re.findall(r'(?:src|href)="([^"]+)"', page.text):
        assert client.get(path).status_code == 200, path
    assert ("Retry-After" in text) == (type_.retry_after is not None)


def test_the_type_in_a_response_leads_to_its_page(client: httpx.Client) -> None:
    refused = client.get("/api/products/999999")
    page = client.get(urljoin(str(refused.url), refused.json()["type"])).text
    assert "<h1>Product not found</h1>" in page
    assert "GET /api/products/{product_id}" in page and "POST /api/holds" in page
    assert "any request" not in page
    assert client.get("/problems/no_such_problem").json()["code"] == "not_found"
