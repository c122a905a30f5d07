"""A hold that is extended on the page before it lapses."""

import re
from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import Page, expect

from tests.page.test_checkout import expect_message, logged, newest_answer, press, units
from tests.page.test_tabs import another_tab, lose_the_answer
from tests.support.sql_calls import change_terms

TIME_LEFT = "Time left on your hold"


def extend(page: Page):
    return page.get_by_role("button", name="Keep it longer")


def expect_left(page: Page, pattern: str) -> None:
    expect(page.get_by_role("timer", name=TIME_LEFT)).to_have_text(re.compile(pattern))


@pytest.fixture
def extension_time(db) -> Iterator[Callable[[int], None]]:
    def change(seconds: int) -> None:
        query = "select flashsale.change_settings(p_extension_time => make_interval(secs => %s))"
        db.execute(query, (seconds,))

    yield change
    change(60)


def test_the_button_appears_when_little_time_remains(buyer, db, product):
    change_terms(db, product, hold_time="34 s")
    # The browser records it: a slow machine might look too late.
    buyer.evaluate("""() => {
        const button = document.getElementById("do-extend");
        const left = document.getElementById("hold-left");
        window.appeared = null;
        new MutationObserver(() => button.hidden || (appeared ??= left.textContent))
            .observe(button, { attributes: true, attributeFilter: ["hidden"] });
    }""")
    press(buyer, "Reserve")
    expect(extend(buyer)).to_be_visible()
    assert buyer.evaluate("appeared") in ("0:30", "0:29")


def test_a_hold_is_extended(buyer, db, product, hold_time):
    hold_time(25)
    press(buyer, "Reserve")
    expect_message(buyer, "Reserved 1 unit.")
    extend(buyer).click()
    expect_message(buyer, "Extended. Yours until")
    expect_left(buyer, r"^1:[12]\d$")
    expect(extend(buyer)).to_be_hidden()
    expect(buyer.get_by_role("heading", name="Yours for now")).to_be_focused()
    assert logged(buyer)[-1][2] == "200 OK"
    press(buyer, "Order")
    expect_message(buyer, "It awaits")


def test_a_hold_that_was_extended_as_often_as_it_may_is_shown(buyer, db, product, hold_time, extension_time):
    hold_time(20)
    extension_time(5)
    press(buyer, "Reserve")
    expect_message(buyer, "Reserved 1 unit.")
    extend(buyer).click()
    expect_message(buyer, "Extended.")
    extend(buyer).click()
    expect_message(buyer, "Extension refused. The hold on Limited sneaker cannot be kept longer.")
    expect(extend(buyer)).to_be_hidden()
    assert logged(buyer)[-1][2] == "409 Conflict"
    press(buyer, "Order")
    expect_message(buyer, "It awaits")


def test_an_extension_whose_answer_was_lost_extends_once(buyer, db, product, hold_time):
    hold_time(25)
    press(buyer, "Reserve")
    expect_message(buyer, "Reserved 1 unit.")
    buyer.route("**/extension", lose_the_answer, times=1)
    extend(buyer).click()
    expect_message(buyer, "No response.")
    extend(buyer).click()
    expect_message(buyer, "Extended.")
    expect(newest_answer(buyer)).to_contain_text("Idempotency-Replayed: true")
    expect_left(buyer, r"^1:[12]\d$")


def test_the_extension_of_a_hold_that_is_gone(buyer, db, client, product, hold_time):
    hold_time(25)
    with buyer.expect_response("**/api/holds") as answer:
        press(buyer, "Reserve")
    expect_message(buyer, "Reserved 1 unit.")
    client.delete(f"/api/holds/{answer.value.json()['hold_id']}")
    extend(buyer).click()
    expect_message(buyer, "Hold released. The hold on Limited sneaker was released.")
    expect(buyer.get_by_role("button", name="Reserve", exact=True)).to_be_visible()
    assert units(db, product) == (50, 0, 0, 0)


def test_another_tab_shows_the_new_end(buyer, hold_time):
    hold_time(25)
    tab = another_tab(buyer)
    press(buyer, "Reserve")
    expect(tab.get_by_role("button", name="Release")).to_be_visible()
    extend(buyer).click()
    expect_message(buyer, "Extended.")
    expect_left(tab, r"^1:[12]\d$")


def test_a_tab_that_has_not_heard_of_the_extension_asks_at_the_end(buyer, client, hold_time):
    hold_time(5)
    with buyer.expect_response("**/api/holds") as answer:
        press(buyer, "Reserve")
    hold = answer.value.json()
    path = f"/api/holds/{hold['hold_id']}/extension"
    assert client.post(path, json={"expires_at": hold["expires_at"]}).status_code == 200
    expect_left(buyer, r"^(1:00|0:5\d)$")
    expect(buyer.get_by_role("button", name="Order", exact=True)).to_be_visible()
