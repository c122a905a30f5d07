"""The checkout on the page: each step is a real request whose response is shown."""

import re

import psycopg
from playwright.sync_api import Locator, Page, expect

from flashsale.database.seed import APP_ROLE
from tests.support.http import running_server

SECRET = "whsec_" + "c2VjcmV0" * 6


def press(page: Page, name: str) -> None:
    page.get_by_role("button", name=name, exact=True).click()


def expect_message(page: Page, text: str) -> None:
    expect(page.locator("#message")).to_contain_text(text)


def logged(page: Page) -> list[tuple[str, str, str]]:
    """Every request in the log, oldest first: method, path, status."""
    return [
        tuple(entry.locator(f".{part}").text_content() for part in ("method", "path", "status"))
        for entry in reversed(page.locator("#entries > li").all())
    ]


def newest_answer(page: Page) -> Locator:
    return page.locator("#entries pre[data-side=answer]").first


def order_of(page: Page) -> int:
    return int(re.search(r"Order (\d+)", page.locator("#pay-title").text_content())[1])


def buy(page: Page, qty: int = 1) -> int:
    page.get_by_label("Quantity").fill(str(qty))
    press(page, "Reserve")
    press(page, "Order")
    expect_message(page, "It awaits")
    return order_of(page)


def units(db: psycopg.Connection, product: int) -> tuple[int, int, int, int]:
    return db.execute(
        "select available_stock, held, awaiting, paid from flashsale.stock where product_id = %s", (product,)
    ).fetchone()


def test_reserve_order_pay(buyer, db, product):
    buyer.get_by_role("button", name="One more").click()
    press(buyer, "Reserve")
    expect_message(buyer, "Reserved 2 units.")
    expect(buyer.get_by_role("timer", name="Time left on your hold")).to_have_text(
        re.compile(r"^(2:00|1:5\d)$")
    )
    expect(buyer.locator("#units-held")).to_have_text("2")
    press(buyer, "Order")
    expect_message(buyer, "It awaits 198.00 USD.")
    expect(buyer.get_by_role("timer", name="Time left to pay")).to_have_text(re.compile(r"^(15:00|14:5\d)$"))
    press(buyer, "Pay")
    expect_message(buyer, "is paid.")
    expect(buyer.locator("#units-paid")).to_have_text("2")
    assert logged(buyer) == [
        ("POST", "/api/holds", "201 Created"),
        ("POST", "/api/orders", "201 Created"),
        ("POST", "/api/payments/webhook", "200 OK"),
    ]
    assert units(db, product) == (48, 0, 0, 2)


def test_the_log_shows_request_and_response(buyer, product):
    press(buyer, "Reserve")
    expect_message(buyer, "Reserved 1 unit.")
    sent, answered = buyer.locator("#entries pre").all_text_contents()
    assert sent.startswith("POST /api/holds HTTP/1.1\nContent-Type: application/json\nIdempotency-Key: ")
    assert f'"product_id": {product},' in sent
    assert answered.startswith("HTTP/1.1 201 Created\nLocation: /api/holds/")
    assert "X-Request-ID: " in answered and '"status": "active"' in answered


def test_a_failed_payment_returns_the_units(buyer, db, product):
    buy(buyer, 3)
    press(buyer, "Let it fail")
    expect_message(buyer, "The payment failed. Its units are back on sale.")
    expect(buyer.locator("#available")).to_have_text("50")
    press(buyer, "Pay after all")
    expect_message(buyer, "is paid.")
    assert units(db, product) == (47, 0, 0, 3)


def test_a_payment_after_a_cancellation_is_a_refund_due(buyer, db, product):
    buy(buyer)
    press(buyer, "Cancel it")
    expect_message(buyer, "The payment was cancelled.")
    press(buyer, "Pay after all")
    expect_message(buyer, "Refund due.")
    assert units(db, product) == (50, 0, 0, 0)


def test_a_webhook_sent_twice_has_one_effect(buyer, db, product):
    order = buy(buyer)
    press(buyer, "Pay, sent twice")
    expect_message(buyer, "The replay changed nothing.")
    assert [entry[2] for entry in logged(buyer)[-2:]] == ["200 OK", "200 OK"]
    expect(newest_answer(buyer)).to_contain_text("Idempotency-Replayed: true")
    payments = db.execute("select * from flashsale.payments where order_id = %s", (order,)).fetchall()
    assert len(payments) == 1
    press(buyer, "Repeat the last webhook")
    expect(buyer.locator("#entries > li")).to_have_count(5)
    press(buyer, "Pay a second time")
    expect_message(buyer, "Refund due.")
    assert units(db, product) == (49, 0, 0, 1)
    refunds = db.execute("select reason from flashsale.refunds_due where order_id = %s", (order,)).fetchall()
    assert refunds == [("paid_twice",)]


def test_the_webhook_before_its_order(buyer, db, product):
    press(buyer, "Reserve")
    press(buyer, "Order, payment first")
    expect_message(buyer, "was paid as it was created.")
    assert [entry[1:] for entry in logged(buyer)] == [
        ("/api/holds", "201 Created"),
        ("/api/holds", "201 Created"),  # the trial order that shows the current order id
        ("/api/orders", "201 Created"),
        ("/api/payments/webhook", "200 OK"),
        ("/api/payments/webhook", "202 Accepted"),
        ("/api/orders", "201 Created"),
    ]
    press(buyer, "Start again")
    press(buyer, "Reserve")
    press(buyer, "Order, payment first")  # this time it knows
    expect_message(buyer, "was paid as it was created.")
    expect(buyer.locator("#entries > li")).to_have_count(9)
    assert units(db, product) == (48, 0, 0, 2)


def test_a_hold_counts_down_and_expires(buyer, hold_time, db, product):
    hold_time(2)
    buyer.get_by_label("Quantity").fill("5")
    buyer.evaluate("""() => {
        window.shown = [];
        const timer = document.getElementById("hold-left");
        new MutationObserver(() => shown.push(timer.textContent)).observe(timer, { childList: true });
    }""")
    press(buyer, "Reserve")
    expect(buyer.locator("#available")).to_have_text("45")
    expect_message(buyer, "Hold expired. All its 5 units are available again")
    expect(buyer.locator("#available")).to_have_text("50")
    expect(buyer.get_by_role("button", name="Reserve")).to_be_visible()
    shown = buyer.evaluate("shown")
    assert [left for left in shown if left in ("0:02", "0:01")] == ["0:02", "0:01"], shown


def test_an_expired_hold_cannot_be_ordered(buyer, hold_time):
    hold_time(3)  # to press the next button in
    press(buyer, "Reserve")
    press(buyer, "Let it lapse")
    expect_message(buyer, "Hold expired.")
    assert logged(buyer)[-1] == ("POST", "/api/orders", "410 Gone")


def test_a_released_hold_is_back_on_sale(buyer):
    press(buyer, "Reserve")
    expect(buyer.locator("#available")).to_have_text("49")
    press(buyer, "Release")
    expect_message(buyer, "Released 1 unit. They are back on sale.")
    expect(buyer.locator("#available")).to_have_text("50")


def test_refusals_are_explained(buyer):
    refusals = {
        "51": "Insufficient stock. Limited sneaker has 50 available, not 51.",
        "0": "Invalid request.",
        "51 ": "Insufficient stock.",
        "2.5": "Invalid request.",
        "": "Invalid request.",
        "999999999": "Insufficient stock.",
        "many": "Invalid request.",
    }
    for qty, message in refusals.items():
        buyer.get_by_label("Quantity").fill(qty)
        with buyer.expect_response("**/api/holds"):  # the text may be that of the refusal before
            press(buyer, "Reserve")
        expect_message(buyer, message)
    assert {status[:3] for _, _, status in logged(buyer)} == {"409", "422"}


def test_a_reload_keeps_the_checkout(buyer):
    press(buyer, "Reserve")
    expect(buyer.get_by_role("button", name="Release")).to_be_visible()
    buyer.reload()
    press(buyer, "Order")
    expect_message(buyer, "It awaits")
    order = order_of(buyer)
    buyer.reload()
    expect(buyer.locator("#pay-title")).to_have_text(f"Order {order}: 99.00 USD")
    press(buyer, "Pay")
    buyer.reload()
    expect(buyer.get_by_role("heading", name=f"Order {order} is paid")).to_be_visible()


def test_a_lost_response_is_retried_with_the_same_key(buyer, db, product):
    """The server receives the request, but its response is lost: pressing again must not reserve twice."""

    def lose_the_answer(route):
        route.fetch()
        route.abort()

    buyer.route("**/api/holds", lose_the_answer, times=1)
    press(buyer, "Reserve")
    expect_message(buyer, "No response.")
    press(buyer, "Reserve")
    expect_message(buyer, "Reserved 1 unit.")
    expect(newest_answer(buyer)).to_contain_text("Idempotency-Replayed: true")
    assert units(db, product) == (49, 1, 0, 0)


def test_the_page_shows_how_to_send_a_signed_webhook(open_page, cluster, database, product, tmp_path):
    url = cluster.url(APP_ROLE, database)
    secrets = {"FLASHSALE_ALLOW_UNSIGNED_WEBHOOKS": "", "FLASHSALE_WEBHOOK_SECRETS": SECRET}
    with running_server(url, tmp_path / "gunicorn.log", **secrets) as base:
        page = open_page(f"{base}/?product={product}")
        order = buy(page)
        press(page, "Pay")
        expect_message(page, "Invalid webhook signature.")
        expect(page.locator("#signed-command")).to_have_text(
            f".venv/bin/flashsale webhook send --order {order} --status success --url {base}"
        )
        with psycopg.connect(url, autocommit=True) as elsewhere:
            elsewhere.execute("select flashsale.apply_payment(%s, %s, 'success')", (f"signed {order}", order))
        expect_message(page, f"Order {order} is paid.")
        page.context.close()
