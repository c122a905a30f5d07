"""The live page: its files, the product, and the stock as others buy."""

import re

import httpx
import pytest
from playwright.sync_api import expect

from api.static_files import PAGE
from tests.page.conftest import PATIENCE

FILES = ["/", *(f"/page/{path.name}" for path in sorted(PAGE.iterdir()) if path.suffix != ".html")]


def test_the_page_is_small():
    sizes = {path.name: path.stat().st_size for path in PAGE.iterdir()}
    assert sizes["index.html"] < 30_000
    assert sum(sizes.values()) < 100_000


@pytest.mark.parametrize("path", FILES)
def test_a_cached_file_is_revalidated(client, path):
    first = client.get(path)
    assert first.status_code == 200
    assert first.headers["cache-control"] == "no-cache"
    assert "default-src 'self'" in first.headers["content-security-policy"]
    again = client.get(path, headers={"If-None-Match": first.headers["etag"]})
    assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", first.headers["etag"])
    assert client.get(path, headers={"If-None-Match": '"another"'}).content == first.content
    assert client.head(path).headers["content-length"] == str(len(first.content))


def test_no_file_names_another_server():
    for path in PAGE.iterdir():
        named = re.findall(r"https?://[^\s\"'`]+", path.read_text())
        assert set(named) <= {"http://www.w3.org/2000/svg"}, path  # a namespace, not an address to fetch


def test_the_page_shows_the_product_and_contacts_no_other_server(buyer, product):
    expect(buyer).to_have_title("Limited sneaker · Flash sale")
    expect(buyer.get_by_role("heading", level=1)).to_have_text("Limited sneaker")
    expect(buyer.locator("#price")).to_have_text("99.00 USD each")
    expect(buyer.locator("#available")).to_have_text("50")
    expect(buyer.locator("#of-total")).to_have_text("of 50 available")


def test_the_stock_changes_when_others_buy(buyer, client, product):
    hold = client.post("/api/holds", json={"product_id": product, "qty": 8}).json()["hold_id"]
    expect(buyer.locator("#available")).to_have_text("42")
    expect(buyer.locator("#units-held")).to_have_text("8")
    expect(buyer.locator("#rate-taken")).to_have_text("0.8/s")
    order = client.post("/api/orders", json={"hold_id": hold}).json()["order_id"]
    expect(buyer.locator("#units-awaiting")).to_have_text("8")
    client.post(
        "/api/payments/webhook", json={"idempotency_key": f"k{order}", "order_id": order, "status": "success"}
    )
    expect(buyer.locator("#units-paid")).to_have_text("8")
    expect(buyer.locator("#rate-paid")).to_have_text("0.8/s")
    for kind in ("available", "paid"):
        assert "NaN" not in buyer.locator(f"#plot path.{kind}").get_attribute("d")


def test_the_plot_has_a_text_and_a_table(buyer, client, product):
    client.post("/api/holds", json={"product_id": product, "qty": 8})
    expect(buyer.get_by_role("img")).to_have_accessible_name(
        re.compile(
            r"^Stock over the last \d+ seconds: available from 50 to 42, held from 0 to 8, .*paid 0\.$"
        )
    )
    buyer.get_by_text("The plot as a table").click()
    newest = buyer.get_by_role("region", name="The plot as a table").get_by_role("row").nth(1)
    expect(newest.get_by_role("cell")).to_have_text(["42", "8", "0", "0"])


def test_the_plot_shows_the_values_under_the_pointer(buyer):
    buyer.locator("#plot").hover(position={"x": buyer.locator("#plot").bounding_box()["width"] - 4, "y": 90})
    expect(buyer.locator("#plot output")).to_contain_text("50 available")


def test_two_browsers_race_for_the_last_unit(open_page, db):
    last = db.execute("select flashsale.create_product('Last one', 1, 99)").fetchone()[0]
    one, two = open_page(f"/?product={last}"), open_page(f"/?product={last}")
    # Both have pressed before either request leaves.
    for page in (one, two):
        page.evaluate("""() => {
            const gate = new Promise((open) => (window.openGate = open));
            const real = window.fetch;
            window.fetch = async (...asked) => (await gate, real(...asked));
        }""")
        page.get_by_role("button", name="Reserve").click()
    for page in (one, two):
        page.evaluate("() => window.openGate()")
    for page in (one, two):
        expect(page.locator("#message")).not_to_be_empty()
    got = [page for page in (one, two) if "Reserved 1 unit." in page.locator("#message").text_content()]
    assert len(got) == 1
    loser = two if got == [one] else one
    expect(loser.get_by_role("status").filter(has_text="Insufficient stock.")).to_be_visible()
    for page in (one, two):
        expect(page.locator("#available")).to_have_text("0")
        expect(page.locator("#units-held")).to_have_text("1")
    holds = db.execute("select * from flashsale.active_holds where product_id = %s", (last,)).fetchall()
    assert len(holds) == 1


def test_another_product_can_be_chosen(buyer, db, product):
    other = db.execute(
        "select flashsale.create_product('<b>Poster</b> & \"frame\"', 7, 5, 'JPY')"
    ).fetchone()[0]
    buyer.reload()
    buyer.get_by_label("Product").select_option(str(other))
    expect(buyer.get_by_role("heading", level=1)).to_have_text('<b>Poster</b> & "frame"')
    expect(buyer.locator("#available")).to_have_text("7")
    assert buyer.url.endswith(f"?product={other}")
    buyer.go_back()
    expect(buyer.locator("#available")).to_have_text("50")


def test_a_product_that_does_not_exist(open_page):
    page = open_page("/?product=987654321", live=False)
    expect(page.get_by_role("heading", level=1)).to_have_text("Product 987654321 does not exist")
    expect(page.get_by_text("Choose a product")).to_be_visible()


def test_a_broken_stream_reconnects(buyer, client, product, db):
    db.execute("alter role flashsale_app nologin")
    try:
        db.execute("select pg_terminate_backend(pid) from pg_stat_activity where usename = 'flashsale_app'")
        expect(buyer.get_by_text("Database unavailable, trying again…")).to_be_visible()
    finally:
        db.execute("alter role flashsale_app login")
    expect(buyer.get_by_text("Live", exact=True)).to_be_visible()
    client.post("/api/holds", json={"product_id": product, "qty": 1})
    expect(buyer.locator("#available")).to_have_text("49")


def test_the_curl_command_on_the_page_works(buyer, server):
    buyer.get_by_text("How the plot is fed").click()
    printed = buyer.locator("#stream-command").text_content()
    address = printed.removeprefix("curl -N ")
    with httpx.stream("GET", address, timeout=PATIENCE) as response:
        assert next(response.iter_lines()) == "event: history"
