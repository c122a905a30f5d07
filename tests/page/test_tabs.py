"""Several tabs of one browser, hidden and shown again, reloaded, closed, and without storage."""

import re

import psycopg
import pytest
from playwright.sync_api import BrowserContext, Page, Route, expect

from tests.page.test_checkout import buy, expect_message, logged, newest_answer, press, units

HIDE = """(state) => {
    Object.defineProperty(document, 'visibilityState', { get: () => state, configurable: true });
    Object.defineProperty(document, 'hidden', { get: () => state === 'hidden', configurable: true });
    document.dispatchEvent(new Event('visibilitychange'));
}"""
"""headless Chromium calls every tab visible"""

LIVE = re.compile("/live$")


def switch(page: Page, state: str) -> None:
    """As if another tab came to the front ("hidden"), or this one ("visible")."""
    page.evaluate(HIDE, state)


def is_live(page: Page) -> None:
    expect(page.get_by_text("Live", exact=True)).to_be_visible()


def another_tab(page: Page) -> Page:
    tab = page.context.new_page()
    tab.goto(page.url)
    is_live(tab)
    return tab


def lose_the_answer(route: Route) -> None:
    """The server receives the request; its answer never arrives."""
    if route.request.method == "POST":
        route.fetch()
        route.abort()
    else:
        route.continue_()


def holds(db: psycopg.Connection, product: int) -> int:
    return db.execute(
        "select count(*) from flashsale_data.holds where product_id = %s", (product,)
    ).fetchone()[0]


def results(db: psycopg.Connection, product: int) -> list[str]:
    """Of the payments of this product's orders."""
    rows = db.execute(
        "select p.result from flashsale.payments p join flashsale_data.orders o using (order_id)"
        " where o.product_id = %s order by p.received_at",
        (product,),
    )
    return [result for (result,) in rows]


# Streams


def test_seven_tabs_of_one_browser(buyer, db, product):
    """HTTP/1.1: a browser opens six connections to a server, and an open stream keeps one."""
    tabs = [buyer]
    while len(tabs) < 7:
        switch(tabs[-1], "hidden")
        tabs.append(another_tab(buyer))
    switch(tabs[-1], "hidden")
    switch(buyer, "visible")
    is_live(buyer)
    press(buyer, "Reserve")
    expect_message(buyer, "Reserved 1 unit.")
    expect(buyer.locator("#available")).to_have_text("49")


def test_a_tab_that_is_shown_again_catches_up(buyer, client, product):
    switch(buyer, "hidden")
    expect(buyer.get_by_text("Paused", exact=True)).to_be_visible()
    client.post("/api/holds", json={"product_id": product, "qty": 3})
    switch(buyer, "visible")
    is_live(buyer)
    expect(buyer.locator("#available")).to_have_text("47")


def test_a_tab_that_is_opened_in_the_background_takes_no_stream(buyer):
    tab = buyer.context.new_page()
    streams = []
    tab.on("request", lambda request: LIVE.search(request.url) and streams.append(request.url))
    tab.add_init_script(f"({HIDE})('hidden')")
    tab.goto(buyer.url)
    expect(tab.locator("#product-name")).to_have_text("Limited sneaker")
    assert streams == []
    switch(tab, "visible")
    is_live(tab)
    assert len(streams) == 1


def test_a_page_from_the_back_forward_cache_is_live_again(buyer, client, product):
    buyer.evaluate("dispatchEvent(new PageTransitionEvent('pagehide', { persisted: true }))")
    expect(buyer.get_by_text("Paused", exact=True)).to_be_visible()
    client.post("/api/holds", json={"product_id": product, "qty": 3})
    buyer.evaluate("dispatchEvent(new PageTransitionEvent('pageshow', { persisted: true }))")
    is_live(buyer)
    expect(buyer.locator("#available")).to_have_text("47")


def test_a_machine_that_has_slept_opens_a_new_stream(buyer):
    with buyer.expect_request(LIVE):
        buyer.evaluate("() => { const now = Date.now; Date.now = () => now() + 60_000; }")
    is_live(buyer)


# Answers that never came


def test_a_hold_whose_answer_was_lost_is_shown_after_a_reload(buyer, db, product):
    buyer.get_by_label("Quantity").fill("2")
    buyer.route("**/api/holds", lose_the_answer)
    press(buyer, "Reserve")
    expect_message(buyer, "No response.")
    buyer.reload()
    expect_message(buyer, "No response.")
    buyer.unroute("**/api/holds")
    buyer.reload()
    expect_message(buyer, "Reserved 2 units.")
    expect(newest_answer(buyer)).to_contain_text("Idempotency-Replayed: true")
    assert (holds(db, product), units(db, product)) == (1, (48, 2, 0, 0))


def test_a_reload_while_the_answer_is_awaited(buyer, db, product):
    """The page goes away in the middle of its request."""
    with buyer.expect_request("**/api/holds"):
        buyer.route("**/api/holds", lambda route: route.fetch(), times=1)
        press(buyer, "Reserve")
    buyer.reload()
    expect_message(buyer, "Reserved 1 unit.")
    assert holds(db, product) == 1


def test_an_order_and_a_payment_whose_answers_were_lost(buyer, db, product):
    press(buyer, "Reserve")
    expect_message(buyer, "Reserved 1 unit.")
    buyer.route("**/api/orders", lambda route: route.abort(), times=1)  # it never arrives
    press(buyer, "Order")
    expect_message(buyer, "No response.")
    buyer.reload()
    expect_message(buyer, "It awaits 99.00 USD.")
    buyer.route("**/api/payments/webhook", lose_the_answer, times=1)
    press(buyer, "Pay")
    expect_message(buyer, "No response.")
    press(buyer, "Pay")
    expect_message(buyer, "The replay changed nothing.")
    buyer.reload()
    expect(buyer.locator("#done-title")).to_contain_text("is paid")
    assert units(db, product) == (49, 0, 0, 1)
    assert results(db, product) == ["applied"]


def test_a_payment_whose_answer_was_lost_is_repeated_after_a_reload(buyer, db, product):
    order = buy(buyer)
    # A webhook that never arrived has paid nothing yet.
    buyer.route("**/api/payments/webhook", lambda route: route.abort(), times=1)
    press(buyer, "Pay")
    expect_message(buyer, "No response.")
    buyer.reload()
    expect_message(buyer, f"Order {order} is paid.")
    assert units(db, product) == (49, 0, 0, 1)


@pytest.mark.parametrize("body", ["<h1>Bad gateway</h1>", ""])
def test_the_answer_of_a_proxy_leaves_the_outcome_open(buyer, db, product, body):
    def answer_instead(route: Route) -> None:
        route.fetch()
        route.fulfill(status=502, content_type="text/html", body=body)

    buyer.route("**/api/holds", answer_instead, times=1)
    press(buyer, "Reserve")
    expect_message(buyer, "HTTP 502. The request may or may not have taken effect.")
    press(buyer, "Reserve")
    expect_message(buyer, "Reserved 1 unit.")
    assert holds(db, product) == 1


def test_another_quantity_after_a_lost_answer_reserves_no_more(buyer, db, product):
    buyer.route("**/api/holds", lose_the_answer, times=1)
    press(buyer, "Reserve")
    expect_message(buyer, "No response.")
    buyer.get_by_label("Quantity").fill("3")
    press(buyer, "Reserve")
    expect_message(buyer, "Reserved 1 unit.")
    assert units(db, product) == (49, 1, 0, 0)


def test_another_quantity_after_a_request_that_never_arrived_and_is_refused(buyer, db, product):
    buyer.route("**/api/holds", lambda route: route.abort(), times=1)
    buyer.get_by_label("Quantity").fill("51")
    press(buyer, "Reserve")
    expect_message(buyer, "No response.")
    buyer.get_by_label("Quantity").fill("3")
    press(buyer, "Reserve")
    expect_message(buyer, "Reserved 3 units.")
    assert [status for _, _, status in logged(buyer)] == ["no response", "409 Conflict", "201 Created"]


def test_an_old_request_is_not_repeated_unasked(buyer, db, product):
    buyer.route("**/api/holds", lambda route: route.abort(), times=1)
    press(buyer, "Reserve")
    expect_message(buyer, "No response.")
    buyer.evaluate("""() => {
        for (const key of Object.keys(localStorage).filter((key) => key.startsWith("unanswered"))) {
            const kept = JSON.parse(localStorage[key]);
            localStorage[key] = JSON.stringify({ ...kept, at: kept.at - 16 * 60_000 });
        }
    }""")
    buyer.reload()
    is_live(buyer)
    expect(buyer.get_by_role("button", name="Reserve")).to_be_visible()
    assert buyer.evaluate("Object.keys(localStorage)") == []
    assert (logged(buyer), holds(db, product)) == ([], 0)


# Tabs that share a checkout


def test_a_new_tab_has_the_hold_of_one_that_was_closed(buyer, db, product):
    press(buyer, "Reserve")
    expect_message(buyer, "Reserved 1 unit.")
    tab = another_tab(buyer)
    buyer.close()
    press(tab, "Order")
    expect_message(tab, "It awaits")
    assert units(db, product) == (49, 0, 1, 0)


def test_a_tab_follows_what_another_does(buyer):
    tab = another_tab(buyer)
    press(buyer, "Reserve")
    expect(tab.get_by_role("button", name="Release")).to_be_visible()
    press(tab, "Release")
    expect(buyer.get_by_role("button", name="Reserve")).to_be_visible()
    order = buy(buyer)
    expect(tab.locator("#pay-title")).to_contain_text(f"Order {order}")
    press(tab, "Pay")
    expect(buyer.get_by_role("heading", name=f"Order {order} is paid")).to_be_visible()
    press(buyer, "Start again")
    expect(tab.get_by_role("button", name="Reserve")).to_be_visible()


@pytest.mark.parametrize("name", ["Reserve", "Pay"])
def test_two_tabs_that_press_the_same_at_once_do_it_once(buyer, db, product, name):
    if name == "Pay":
        buy(buyer)
    tab = another_tab(buyer)
    for page in (buyer, tab):
        page.evaluate("""() => {
            const gate = new Promise((open) => (window.openGate = open));
            const real = window.fetch;
            window.fetch = async (...asked) => (await gate, real(...asked));
        }""")
        press(page, name)
    for page in (buyer, tab):
        page.evaluate("() => window.openGate()")
    for page in (buyer, tab):
        expect(
            page.get_by_role("button", name="Release" if name == "Reserve" else "Start again")
        ).to_be_visible()
    assert units(db, product) == ((49, 1, 0, 0) if name == "Reserve" else (49, 0, 0, 1))
    assert results(db, product) == ([] if name == "Reserve" else ["applied"])


def test_a_tab_that_slept_while_another_went_on(buyer):
    """A frozen tab receives no event."""
    tab = another_tab(buyer)
    switch(tab, "hidden")
    tab.evaluate(
        "addEventListener('storage', (event) => event.stopImmediatePropagation(), { capture: true })"
    )
    press(buyer, "Reserve")
    expect_message(buyer, "Reserved 1 unit.")
    switch(tab, "visible")
    expect(tab.get_by_role("button", name="Release")).to_be_visible()


# Storage


@pytest.mark.parametrize(
    "without",
    [
        "for (const name of ['localStorage', 'sessionStorage'])"
        "  Object.defineProperty(window, name, {"
        "    get() { throw new DOMException('denied', 'SecurityError'); } })",
        "Storage.prototype.setItem = () => { throw new DOMException('full', 'QuotaExceededError'); }",
    ],
    ids=["denied", "full"],
)
def test_without_storage_the_page_sells_as_well(buyer, db, product, without):
    context: BrowserContext = buyer.context
    context.add_init_script(without)
    buyer.reload()
    is_live(buyer)
    buyer.route("**/api/holds", lose_the_answer, times=1)
    press(buyer, "Reserve")
    expect_message(buyer, "No response.")
    press(buyer, "Reserve")
    expect_message(buyer, "Reserved 1 unit.")
    press(buyer, "Order")
    press(buyer, "Pay")
    expect_message(buyer, "is paid.")
    assert (holds(db, product), units(db, product)) == (1, (49, 0, 0, 1))


@pytest.mark.parametrize("value", ["{", "7", "null", '{"hold_id": "x"}', '{"at": 1}', '"text"'])
def test_what_is_not_the_pages_own_is_ignored(buyer, product, value):
    buyer.evaluate(
        """([product, value]) => {
            for (const key of [`checkout ${product}`, `unanswered hold ${product}`])
                localStorage[key] = value;
        }""",
        [product, value],
    )
    buyer.reload()
    is_live(buyer)
    press(buyer, "Reserve")
    expect_message(buyer, "Reserved 1 unit.")
