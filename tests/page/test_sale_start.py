"""The page before a sale: it counts down by the database's clock, and opens by itself at the instant."""

import re
from datetime import datetime, timedelta

import psycopg
import pytest
from playwright.sync_api import Page, Route, expect

from tests.page.test_checkout import expect_message, logged
from tests.page.test_tabs import switch
from tests.support.sql_calls import pause_sale, resume_sale
from tests.support.waiting import wait_until

HOUR = 3_600_000

WRONG_CLOCK = """
    const Right = Date;
    window.Date = class extends Right {
        constructor(...given) { given.length ? super(...given) : super(Right.now() + AHEAD); }
        static now() { return Right.now() + AHEAD; }
    };
"""

SLEEPING = """
    const { now } = performance;
    let slept = 0;
    window.sleep = (milliseconds) => (slept += milliseconds);
    performance.now = () => now.call(performance) - slept;
"""
"""while the machine sleeps, the date goes on, and performance.now() stands still"""

AT_ONCE = """() => new MutationObserver((_, observer) => {
    const button = document.getElementById("do-reserve");
    if (button.disabled) return;
    observer.disconnect();
    button.click();
}).observe(document.getElementById("do-reserve"), { attributes: true })
"""
"""The browser presses Reserve as soon as it can: a slow machine might do so too late."""


def reserve(page: Page):
    return page.get_by_role("button", name="Reserve", exact=True)


def countdown(page: Page):
    return page.get_by_role("timer", name="Time until the sale starts")


def without_stream(page: Page) -> None:
    """What happens is the page's own doing."""
    page.route("**/live", lambda route: route.abort())
    page.reload()


def delay_of_the_hold(db: psycopg.Connection, product: int, starts_at: datetime) -> timedelta:
    """From the start of the sale to the only hold."""
    query = "select at from flashsale_data.events where product_id = %s and kind = 'hold_placed'"
    return db.execute(query, (product,)).fetchone()[0] - starts_at


@pytest.mark.parametrize("ahead", [0, -5 * HOUR, 5 * HOUR], ids=["right", "behind", "ahead"])
def test_the_countdown_is_by_the_databases_clock(open_page, starts_in, ahead):
    starts_in(100)
    page = open_page(script=WRONG_CLOCK.replace("AHEAD", str(ahead)))
    expect(countdown(page)).to_have_text(re.compile(r"^1:(40|3\d)$"))
    expect(page.locator("#sale-status")).to_have_text(
        re.compile(r"^The sale starts at .*\d\d:\d\d:\d\d\. This page opens by itself\.$")
    )
    expect(reserve(page)).to_be_disabled()


@pytest.mark.parametrize("ahead", [0, -5 * HOUR, 5 * HOUR], ids=["right", "behind", "ahead"])
def test_the_page_opens_at_the_instant(open_page, db, product, starts_in, ahead):
    page = open_page(script=WRONG_CLOCK.replace("AHEAD", str(ahead)))
    starts_at = starts_in(6)
    without_stream(page)
    expect(countdown(page)).to_be_visible()
    page.evaluate(AT_ONCE)
    expect_message(page, "Reserved 1 unit.")
    expect(page.locator("#sale-status")).to_have_text("On sale.")
    expect(countdown(page)).to_be_hidden()
    assert [status for _, _, status in logged(page)] == ["201 Created"], "it did not try before"
    assert timedelta() <= delay_of_the_hold(db, product, starts_at) < timedelta(seconds=5)


def test_the_page_opens_at_the_instant_after_the_machine_has_slept(open_page, db, product, starts_in):
    page = open_page(script=SLEEPING)
    starts_at = starts_in(8)
    without_stream(page)
    expect(countdown(page)).to_be_visible()
    page.evaluate(AT_ONCE)
    page.evaluate("sleep(3_600_000)")
    expect_message(page, "Reserved 1 unit.")
    assert delay_of_the_hold(db, product, starts_at) < timedelta(seconds=8)


def test_a_tab_that_was_hidden_at_the_instant_opens_when_it_is_shown(open_page, db, starts_in):
    page = open_page()
    starts_at = starts_in(3)
    without_stream(page)
    expect(countdown(page)).to_be_visible()
    switch(page, "hidden")
    started = "select clock_timestamp() > %s"
    wait_until(lambda: db.execute(started, (starts_at,)).fetchone()[0], "the sale has started")
    expect(reserve(page)).to_be_disabled()
    switch(page, "visible")
    expect(reserve(page)).to_be_enabled()


def test_a_start_that_is_moved_is_followed(buyer, starts_in):
    expect(reserve(buyer)).to_be_enabled()
    starts_in(7200)
    expect(countdown(buyer)).to_have_text(re.compile(r"^(2:00:00|1:59:5\d)$"))
    starts_in(100 * 86_400)
    expect(countdown(buyer)).to_have_text(re.compile(r"^(100 d 0:00:00|99 d 23:59:5\d)$"))
    starts_in(-1)
    expect(reserve(buyer)).to_be_enabled()


def test_a_sale_that_is_paused_at_its_start_stays_closed(open_page, db, product, starts_in):
    page = open_page()
    starts_in(3)
    pause_sale(db, product)
    expect(countdown(page)).to_be_visible()
    expect(page.locator("#sale-status")).to_contain_text("The sale is paused")
    expect(reserve(page)).to_be_disabled()
    resume_sale(db, product)
    expect(reserve(page)).to_be_enabled()


def test_retry_after_is_obeyed(buyer, client, product):
    """Another server says that the sale has not started; the page does not ask again before it may."""
    starts_at = "2100-01-01T10:00:00Z"
    refusal = {
        "type": "/problems/sale_not_started", "title": "Sale not started", "status": 409,
        "detail": "", "code": "sale_not_started", "starts_at": starts_at,
    }  # fmt: skip

    def refuse(route: Route) -> None:
        headers = {"Retry-After": "3", "Content-Type": "application/problem+json"}
        route.fulfill(status=409, json=refusal, headers=headers)

    buyer.route("**/api/holds", refuse, times=1)
    buyer.evaluate("""() => {
        window.changes = [];
        const button = document.getElementById("do-reserve");
        const note = () => changes.at(-1)?.[0] === button.disabled
            || changes.push([button.disabled, performance.now()]);
        new MutationObserver(note).observe(button, { attributes: true, attributeFilter: ["disabled"] });
    }""")
    reserve(buyer).click()
    expect_message(buyer, "Sale not started. Limited sneaker is on sale from")
    expect(countdown(buyer)).to_be_visible()
    client.post("/api/holds", json={"product_id": product, "qty": 1})
    expect(buyer.locator("#available")).to_have_text("49")  # the stream has gone on
    expect(reserve(buyer)).to_be_enabled()
    [(closed, since), (reopened, until)] = buyer.evaluate("changes")
    assert (closed, reopened) == (True, False)
    assert until - since >= 2900
