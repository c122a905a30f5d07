"""The terms of a sale on the page: limits, pause, end and cancellation, as they change."""

import re

import pytest
from playwright.sync_api import Page, Route, expect

from flashsale.database.seed import APP_ROLE
from tests.page.test_checkout import buy, expect_message, press, units
from tests.page.test_sale_start import reserve
from tests.page.test_tabs import lose_the_answer
from tests.support.http import running_server
from tests.support.sql_calls import adjust_stock, change_terms, pause_sale, resume_sale


def expect_status(page: Page, text: str) -> None:
    expect(page.locator("#sale-status")).to_contain_text(text)


def expect_limit(page: Page, text: str) -> None:
    expect(page.locator("#sale-limit")).to_have_text(text)


def cancel_sale(db, product: int) -> None:
    db.execute(
        "select flashsale.cancel_sale(%s, refund_total) from flashsale.preview_cancel_sale(%s)",
        (product, product),
    )


def ends_in(db, product: int, seconds: float) -> None:
    (ends_at,) = db.execute("select clock_timestamp() + make_interval(secs => %s)", (seconds,)).fetchone()
    change_terms(db, product, ends_at=ends_at)


# Pause, end, cancellation


def test_a_product_without_terms_shows_none(buyer):
    expect(buyer.locator("#terms")).to_be_hidden()


def test_a_pause_is_shown_as_it_begins_and_ends(buyer, db, product):
    pause_sale(db, product)
    expect_status(buyer, "The sale is paused and may go on at any moment.")
    expect(reserve(buyer)).to_be_disabled()
    resume_sale(db, product)
    expect_status(buyer, "The sale goes on.")
    expect(reserve(buyer)).to_be_enabled()


def test_what_is_held_in_time_is_ordered_and_paid_after_the_end(buyer, db, product):
    ends_in(db, product, 3600)
    expect_status(buyer, "On sale until")
    press(buyer, "Reserve")
    expect_message(buyer, "Reserved 1 unit.")
    ends_in(db, product, 0)
    expect_status(buyer, "The sale ended at")
    press(buyer, "Order")
    press(buyer, "Pay")
    expect_message(buyer, "is paid.")
    press(buyer, "Start again")
    expect(reserve(buyer)).to_be_disabled()


def test_the_end_is_shown_at_its_instant(buyer, db, product):
    ends_in(db, product, 4)
    expect_status(buyer, "On sale until")
    buyer.route("**/live", lambda route: route.abort())
    buyer.reload()
    expect_status(buyer, "The sale ended at")
    expect(reserve(buyer)).to_be_disabled()


def test_a_cancelled_sale_takes_the_hold_back(buyer, db, product):
    press(buyer, "Reserve")
    expect_message(buyer, "Reserved 1 unit.")
    cancel_sale(db, product)
    expect_status(buyer, "The sale was cancelled. What was paid is paid back.")
    expect_message(buyer, "Hold released.")
    expect(reserve(buyer)).to_be_disabled()


def test_a_cancelled_sale_cancels_the_order(buyer, db, product):
    order = buy(buyer)
    cancel_sale(db, product)
    expect(buyer.get_by_role("heading", name=f"Order {order} is cancelled")).to_be_visible()
    expect_message(buyer, "The sale was cancelled. What was paid is paid back.")


@pytest.mark.parametrize(
    ("terms", "code"),
    [
        ("paused", "Sale paused. The sale of Limited sneaker may go on at any moment."),
        ("ended", "Sale ended. Limited sneaker was on sale until"),
        ("cancelled", "Sale cancelled. Limited sneaker is not sold any more."),
    ],
)
def test_a_page_that_has_not_heard_of_it_is_refused_and_learns(buyer, db, product, terms, code):
    buyer.route("**/live", lambda route: route.abort())
    buyer.reload()
    expect(reserve(buyer)).to_be_enabled()
    {"paused": pause_sale, "ended": lambda *of: ends_in(*of, -1), "cancelled": cancel_sale}[terms](
        db, product
    )
    press(buyer, "Reserve")
    expect_message(buyer, code)
    expect(reserve(buyer)).to_be_disabled()
    assert units(db, product)[1:] == (0, 0, 0)


def test_an_old_response_does_not_undo_newer_terms(buyer, db, product):
    waiting: list[tuple[Route, object]] = []
    address = re.compile(f"/api/products/{product}$")
    buyer.route(address, lambda route: waiting.append((route, route.fetch())), times=1)
    with buyer.expect_request(address):
        buyer.evaluate("document.dispatchEvent(new Event('visibilitychange'))")  # it reads the terms
    while not waiting:
        buyer.wait_for_timeout(50)
    pause_sale(db, product)
    expect_status(buyer, "The sale is paused")
    buyer.evaluate("""() => {
        window.seen = [];
        const status = document.getElementById("sale-status");
        new MutationObserver(() => seen.push(status.textContent)).observe(status, { childList: true });
    }""")
    [(route, response)] = waiting
    with buyer.expect_response(address):
        route.fulfill(response=response)
    adjust_stock(db, product, 7)
    expect(buyer.locator("#available")).to_have_text("57")  # it has gone on
    assert buyer.evaluate("seen") == []


def test_an_unlisted_product_is_sold_to_who_knows_its_id(open_page, db, product):
    change_terms(db, product, listed=False)
    page = open_page()
    expect(page.get_by_role("heading", level=1)).to_have_text("Limited sneaker")
    press(page, "Reserve")
    expect_message(page, "Reserved 1 unit.")


# Limits


def test_the_quantity_is_bounded_by_what_remains(open_page, db, product):
    change_terms(db, product, max_per_buyer=2)
    page = open_page()
    quantity = page.get_by_label("Quantity")
    expect_limit(page, "At most 2 for each buyer: you have none, and may have 2.")
    for _ in range(3):
        page.get_by_role("button", name="One more").click()
    expect(quantity).to_have_value("2")
    quantity.fill("7")
    quantity.blur()
    expect(quantity).to_have_value("2")
    quantity.fill("1")
    press(page, "Reserve")
    expect_limit(page, "At most 2 for each buyer: you have 1, and may have 1 more.")
    press(page, "Order")
    press(page, "Pay")
    expect_message(page, "is paid.")
    press(page, "Start again")
    page.get_by_role("button", name="One more").click()
    expect(quantity).to_have_value("1")
    press(page, "Reserve")
    expect_limit(page, "At most 2 for each buyer: you have 2, and may have no more.")
    press(page, "Release")
    expect_limit(page, "At most 2 for each buyer: you have 1, and may have 1 more.")
    expect(reserve(page)).to_be_enabled()
    assert units(db, product) == (49, 0, 0, 1)


def test_a_buyer_who_has_all_cannot_press(open_page, db, product):
    change_terms(db, product, max_per_buyer=1)
    page = open_page()
    press(page, "Reserve")
    press(page, "Order")
    press(page, "Pay")
    press(page, "Start again")
    expect(reserve(page)).to_be_disabled()
    change_terms(db, product, max_per_buyer=3)
    expect_limit(page, "At most 3 for each buyer: you have 1, and may have 2 more.")
    expect(reserve(page)).to_be_enabled()
    change_terms(db, product, max_per_buyer=0)
    expect(page.locator("#sale-limit")).to_be_hidden()


def test_a_limit_that_was_reached_elsewhere_is_shown(open_page, db, client, product):
    change_terms(db, product, max_per_buyer=2)
    page = open_page()
    expect_limit(page, "At most 2 for each buyer: you have none, and may have 2.")
    buyer = page.evaluate("JSON.parse(localStorage.buyer)")
    elsewhere = client.post("/api/holds", json={"product_id": product, "qty": 2, "buyer": buyer})
    assert elsewhere.status_code == 201
    press(page, "Reserve")
    expect_message(page, "Limit reached. At most 2 of Limited sneaker: you have 2, and may have no more.")
    expect(reserve(page)).to_be_disabled()


def test_the_limit_of_a_hold_is_shown(open_page, db, product):
    change_terms(db, product, max_per_hold=3)
    page = open_page()
    page.get_by_label("Quantity").fill("4")
    press(page, "Reserve")
    expect_message(page, "Limit reached. At most 3 of Limited sneaker. Nothing was reserved.")


def test_a_lost_hold_can_be_repeated_although_it_took_all(open_page, db, product):
    change_terms(db, product, max_per_buyer=2)
    page = open_page()
    page.get_by_label("Quantity").fill("2")
    page.route("**/api/holds", lose_the_answer, times=1)
    press(page, "Reserve")
    expect_message(page, "No response.")
    page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")  # it reads the allowance
    expect_limit(page, "At most 2 for each buyer: you have 2, and may have no more.")
    press(page, "Reserve")
    expect_message(page, "Reserved 2 units.")
    assert units(db, product) == (48, 2, 0, 0)


def test_a_server_that_takes_buyers_from_tokens_alone(open_page, cluster, database, db, product, tmp_path):
    change_terms(db, product, max_per_buyer=2)
    url = cluster.url(APP_ROLE, database)
    with running_server(url, tmp_path / "gunicorn.log", FLASHSALE_TRUST_BUYER="") as base:
        page = open_page(f"{base}/?product={product}")
        expect(page.locator("#sale-limit")).to_contain_text("takes the buyer from a token")
        press(page, "Reserve")
        expect_message(page, "Buyer required. Limited sneaker has a limit for each buyer")
        page.context.close()
