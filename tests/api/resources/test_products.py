"""GET /api/products and /api/products/{id}."""

import httpx
import psycopg


def test_a_product_has_its_available_stock(client: httpx.Client) -> None:
    expected = {
        "id": 1, "name": "Shoe", "price": "99.00", "currency": "USD", "total_stock": 50,
        "available_stock": 50, "sale_status": "open", "starts_at": None, "ends_at": None,
        "max_per_buyer": None,
    }  # fmt: skip
    answer = client.get("/api/products/1")
    product = answer.json()
    assert product.pop("now").endswith("Z")
    assert (answer.status_code, product) == (200, expected)
    assert answer.headers["content-type"] == "application/json"
    client.post("/api/holds", json={"product_id": 1, "qty": 12})
    assert client.get("/api/products/1").json()["available_stock"] == 38

    for missing in ("2", "0", "-1", "abc", "1.0", "01", "9223372036854775808", "%00", "%F0%9F%91%9F"):
        answer = client.get(f"/api/products/{missing}")
        assert (answer.status_code, answer.json()["code"]) == (404, "product_not_found"), missing


def test_the_list_is_paged_by_links(client: httpx.Client, db: psycopg.Connection) -> None:
    for n in range(2, 6):
        db.execute("select flashsale.create_product(%s, 1, 500, 'JPY')", (f"Hat {n}",))
    assert [product["id"] for product in client.get("/api/products").json()] == [1, 2, 3, 4, 5]
    assert client.get("/api/products").json()[1]["price"] == "500"

    seen, url, pages = [], "/api/products?limit=2", 0
    while url:
        page = client.get(url)
        seen += [product["id"] for product in page.json()]
        url = page.links.get("next", {}).get("url")
        pages += 1
    assert (seen, pages) == ([1, 2, 3, 4, 5], 3)
    assert client.get("/api/products?after=5").json() == []

    for bad in ("limit=0", "limit=1001", "limit=x", "limit=", "after=-1", "after=1.5", f"after={2**63}"):
        answer = client.get(f"/api/products?{bad}")
        assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request"), bad
