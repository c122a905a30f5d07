"""A front end of another origin, in a browser: what FLASHSALE_CORS_ORIGINS lets it do."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from playwright.sync_api import Browser

from flashsale.database.seed import APP_ROLE
from tests.support.http import running_server

BUY = """async ([api, product]) => {
    const headers = { "Content-Type": "application/json", "Idempotency-Key": crypto.randomUUID() };
    const post = (path, body) => fetch(api + path, { method: "POST", headers, body: JSON.stringify(body) });
    const sold = { product_id: product, qty: 2 };
    const placed = await post("/api/holds", sold);
    const { hold_id } = await placed.json();
    const stock = await new Promise((done, fail) => {
        const stream = new EventSource(`${api}/api/products/${product}/live`);
        stream.addEventListener("stock", ({ data }) => (stream.close(), done(JSON.parse(data))));
        stream.addEventListener("error", fail);
    });
    const page = await fetch(`${api}/api/products?limit=1`);
    return {
        placed: placed.status,
        location: placed.headers.get("Location") === `/api/holds/${hold_id}`,
        request_id: placed.headers.get("X-Request-ID") !== null,
        replayed: (await post("/api/holds", sold)).headers.get("Idempotency-Replayed"),
        available: stock.available,
        next: page.headers.get("Link") !== null,
        refused: (await (await post("/api/holds", { ...sold, qty: 1 })).json()).code,
        released: (await fetch(`${api}/api/holds/${hold_id}`, { method: "DELETE" })).status,
        webhook: await post("/api/payments/webhook", {}).then(({ status }) => status, String),
    };
}"""


@pytest.fixture
def front() -> Iterator[int]:
    """The port of a server of empty pages."""

    class Pages(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Pages) as server:
        serving = threading.Thread(target=server.serve_forever)
        serving.start()
        yield server.server_port
        server.shutdown()
        serving.join()


def test_a_front_end_of_a_listed_origin_buys_and_others_cannot(
    browser: Browser, cluster, database: str, db, product: int, front: int, tmp_path: Path
) -> None:
    db.execute("select flashsale.create_product('Poster', 7, 5)")  # for a second page of products
    shop, stranger = f"http://localhost:{front}", f"http://127.0.0.1:{front}"
    with (
        running_server(
            cluster.url(APP_ROLE, database), tmp_path / "gunicorn.log", FLASHSALE_CORS_ORIGINS=shop
        ) as api,
        browser.new_context() as context,
    ):
        page = context.new_page()
        page.goto(shop)
        assert page.evaluate(BUY, [api, product]) == {
            "placed": 201,
            "location": True,
            "request_id": True,
            "replayed": "true",
            "available": 48,
            "next": True,
            "refused": "idempotency_key_reused",
            "released": 204,
            "webhook": "TypeError: Failed to fetch",
        }
        page.goto(stranger)
        for method in ("GET", "POST"):
            said = page.evaluate(
                """([url, method]) =>
                    fetch(url, { method, headers: { 'Idempotency-Key': 'k' } }).then(String, String)""",
                [f"{api}/api/holds", method],
            )
            assert said == "TypeError: Failed to fetch"
    assert db.execute(
        "select count(*) from flashsale_data.holds where product_id = %s", (product,)
    ).fetchone() == (1,)
