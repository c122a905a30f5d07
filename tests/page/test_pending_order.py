"""A pending order on the page: a declined card leaves it pending, and the buyer can give it back."""

import re

from playwright.sync_api import expect

from tests.page.test_checkout import buy, expect_message, logged, newest_answer, press, units
from tests.page.test_tabs import lose_the_answer, results


def test_a_card_is_declined_and_then_another_one_pays(buyer, db, product):
    order = buy(buyer, 2)
    press(buyer, "Decline the card")
    expect(buyer.locator("#message")).to_have_text(
        re.compile(
            rf"^The card was declined\. Order {order} stays pending until \d\d:\d\d:\d\d:"
            r" pay it with another card\.$"
        )
    )
    expect(newest_answer(buyer)).to_contain_text('"result": "no_change"')
    expect(buyer.locator("#pay-title")).to_have_text(f"Order {order}: 198.00 USD")
    expect(buyer.get_by_role("timer", name="Time left to pay")).to_have_text(re.compile(r"^(15:00|14:\d\d)$"))
    assert units(db, product) == (48, 0, 2, 0)
    press(buyer, "Decline the card")
    expect(buyer.locator("#entries > li")).to_have_count(4)
    press(buyer, "Pay")
    expect_message(buyer, f"Order {order} is paid.")
    assert [status for _, path, status in logged(buyer) if "webhook" in path] == ["200 OK"] * 3
    assert units(db, product) == (48, 0, 0, 2)
    assert results(db, product) == ["no_change", "no_change", "applied"]


def test_a_declined_card_whose_answer_was_lost(buyer, db, product):
    order = buy(buyer)
    buyer.route("**/api/payments/webhook", lose_the_answer, times=1)
    press(buyer, "Decline the card")
    expect_message(buyer, "No response.")
    buyer.reload()
    expect_message(buyer, f"The card was declined. Order {order} stays pending")
    press(buyer, "Pay")
    expect_message(buyer, "is paid.")
    assert units(db, product) == (49, 0, 0, 1)


def test_a_pending_order_is_given_back(buyer, db, product):
    order = buy(buyer, 3)
    press(buyer, "Give it back")
    expect_message(buyer, "You gave it back. Its units are back on sale.")
    expect(buyer.get_by_role("heading", name=f"Order {order} is cancelled")).to_be_visible()
    expect(buyer.locator("#done-what")).to_have_text("You gave it back. 3 units went back on sale.")
    expect(buyer.locator("#available")).to_have_text("50")
    assert logged(buyer)[-1][2] == "204 No Content"
    press(buyer, "Pay after all")
    expect_message(buyer, "Refund due.")
    assert units(db, product) == (50, 0, 0, 0)


def test_an_order_that_was_paid_meanwhile_is_not_given_back(buyer, client, db, product):
    order = buy(buyer)
    event = {"idempotency_key": f"elsewhere {order}", "order_id": order, "status": "success"}
    assert client.post("/api/payments/webhook", json=event).json()["status"] == "paid"
    press(buyer, "Give it back")
    expect_message(buyer, "Order settled. The order for Limited sneaker is paid, and cannot be given back.")
    expect(buyer.get_by_role("heading", name=f"Order {order} is paid")).to_be_visible()
    assert units(db, product) == (49, 0, 0, 1)


def test_giving_back_whose_answer_was_lost(buyer, db, product):
    buy(buyer)
    buyer.route(re.compile(r"/api/orders/\d+"), lambda route: (route.fetch(), route.abort()), times=1)
    press(buyer, "Give it back")
    expect_message(buyer, "No response.")
    press(buyer, "Give it back")
    expect_message(buyer, "You gave it back.")
    assert units(db, product) == (50, 0, 0, 0)
