"""The page with a keyboard, a screen reader, and reduced motion."""

import re

import psycopg
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

from tests.page.conftest import DESKTOP, PHONE
from tests.support.sql_calls import change_terms, pause_sale

FOCUS_IS_VISIBLE = "e => e.matches(':focus-visible') && getComputedStyle(e).outlineStyle !== 'none'"
NAME = "e => (e.labels?.[0]?.textContent ?? e.ariaLabel ?? e.textContent).trim()"
SCROLLS_SIDEWAYS = "document.documentElement.scrollWidth > innerWidth"


def tab_to(page: Page, name: str, most: int = 30) -> None:
    """Press Tab until the button or field of this name has the focus; the focus must be visible."""
    for _ in range(most):
        page.keyboard.press("Tab")
        focused = page.locator(":focus")
        assert focused.evaluate(FOCUS_IS_VISIBLE), focused.evaluate("e => e.outerHTML")
        if focused.evaluate(NAME) == name:
            return
    raise AssertionError(f"{name} cannot be reached by Tab")


def test_the_checkout_with_the_keyboard(buyer):
    buyer.keyboard.press("Tab")
    expect(buyer.get_by_role("link", name="Skip to the checkout")).to_be_focused()
    buyer.keyboard.press("Enter")
    tab_to(buyer, "Quantity")
    buyer.keyboard.press("Control+A")
    buyer.keyboard.type("2")
    buyer.keyboard.press("Enter")
    expect(buyer.get_by_role("heading", name="Yours for now")).to_be_focused()
    tab_to(buyer, "Order")
    buyer.keyboard.press("Enter")
    expect(buyer.get_by_role("heading", name="198.00 USD")).to_be_focused()
    tab_to(buyer, "Let it fail")
    buyer.keyboard.press("Space")
    expect(buyer.get_by_role("heading", name="is cancelled")).to_be_focused()
    tab_to(buyer, "Start again")
    buyer.keyboard.press("Enter")
    expect(buyer.get_by_role("heading", name="Reserve some")).to_be_focused()


def test_an_expiring_hold_does_not_move_the_focus(buyer, hold_time):
    hold_time(1)
    buyer.get_by_role("button", name="Reserve").click()
    buyer.get_by_text("How the plot is fed").focus()
    expect(buyer.locator("#message")).to_contain_text("Hold expired.")
    expect(buyer.get_by_text("How the plot is fed")).to_be_focused()


def test_results_are_announced_and_the_plot_is_not(buyer):
    expect(buyer.locator("#message")).to_have_attribute("role", "status")
    expect(buyer.get_by_role("timer", include_hidden=True)).to_have_count(3)
    assert buyer.locator("#plot [role=status], #plot [aria-live], dl [aria-live]").count() == 0
    assert buyer.get_by_role("banner").count() == buyer.get_by_role("main").count() == 1


def states(page: Page, more: int = 5000):
    """The page in each of its states; `more` units than there are."""
    yield "to reserve"
    page.get_by_label("Quantity").fill(str(more))
    page.get_by_role("button", name="Reserve").click()
    expect(page.locator("#message")).to_contain_text("Insufficient stock.")
    yield "refused"
    page.get_by_label("Quantity").fill("1")
    page.get_by_role("button", name="Reserve").click()
    expect(page.locator("#order")).to_be_visible()
    yield "to order"
    page.get_by_role("button", name="Order", exact=True).click()
    expect(page.locator("#pay")).to_be_visible()
    yield "to pay"
    page.get_by_role("button", name="Pay", exact=True).click()
    expect(page.locator("#done")).to_be_visible()
    page.get_by_text("The plot as a table").click()
    page.get_by_text("How the plot is fed").click()
    yield "done"


def sale_states(page: Page, db: psycopg.Connection, product: int):
    """The page as the terms of its product change."""
    status = page.locator("#sale-status")
    change_terms(db, product, starts_at="2100-01-01T10:00Z", max_per_buyer=2)
    expect(page.get_by_role("timer", name="Time until the sale starts")).to_be_visible()
    yield "scheduled"
    change_terms(db, product, starts_at="-infinity", ends_at="2100-01-01T10:00Z")
    expect(status).to_contain_text("On sale until")
    yield "open"
    pause_sale(db, product)
    expect(status).to_contain_text("The sale is paused")
    yield "paused"
    change_terms(db, product, ends_at="2020-01-01T10:00Z")
    expect(status).to_contain_text("The sale ended at")
    yield "ended"


# Of what axe looks for, colours alone depend on the colour scheme.
AXE = """
    async (only) => (await axe.run(document, only ? { runOnly: only } : {})).violations.map(
        ({ id, nodes }) => [id, nodes.map(({ html, failureSummary }) => [html, failureSummary])])
"""


@pytest.mark.parametrize("viewport", [PHONE, DESKTOP], ids=["phone", "desktop"])
def test_axe_finds_nothing(open_page, viewport):
    page = open_page(viewport=viewport, bypass_csp=True, reduced_motion="reduce")
    Axe().run(page)  # puts its script into the page
    for state in states(page):
        page.emulate_media(color_scheme="light")
        assert page.evaluate(AXE) == [], state
        page.emulate_media(color_scheme="dark")
        assert page.evaluate(AXE, ["color-contrast"]) == [], f"{state}, dark"
        assert not page.evaluate(SCROLLS_SIDEWAYS), state


@pytest.mark.parametrize("viewport", [PHONE, DESKTOP], ids=["phone", "desktop"])
def test_axe_finds_nothing_in_the_terms_of_a_sale(open_page, db, product, viewport):
    page = open_page(viewport=viewport, bypass_csp=True, reduced_motion="reduce")
    Axe().run(page)  # puts its script into the page
    for state in sale_states(page, db, product):
        page.emulate_media(color_scheme="light")
        assert page.evaluate(AXE) == [], state
        page.emulate_media(color_scheme="dark")
        assert page.evaluate(AXE, ["color-contrast"]) == [], f"{state}, dark"


def test_touch_targets_are_large_enough(open_page):
    page = open_page(viewport=PHONE, has_touch=True)
    for _ in states(page):
        for button in page.locator("button:visible:not(.copy), select:visible").all():
            box = button.bounding_box()
            assert min(box["width"], box["height"]) >= 40, button.text_content()


def test_reduced_motion(open_page):
    page = open_page(reduced_motion="reduce")
    moving = page.evaluate("document.getAnimations().map((one) => one.animationName)")
    assert moving == []
    before = page.locator("#plot path.available").get_attribute("d")
    assert re.match(r"M[\d.]+,", before)


def test_the_page_is_legible_at_twice_the_text_size(open_page):
    page = open_page(viewport={"width": 640, "height": 900})
    page.evaluate("document.documentElement.style.fontSize = '200%'")
    assert not page.evaluate(SCROLLS_SIDEWAYS)
