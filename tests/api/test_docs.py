"""/docs: the viewer and everything it needs come from this server."""

import re

import httpx

from api.docs import docs_routes


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
