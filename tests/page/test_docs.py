"""/docs and the page of a problem type, in a browser."""

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect

from api.openapi.operations import OPERATIONS
from tests.page.conftest import DESKTOP, PHONE


@pytest.mark.parametrize("viewport", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_every_operation_is_shown(open_page, viewport):
    page = open_page("/docs", live=False, viewport=viewport)
    expect(page.get_by_role("heading", level=1)).to_contain_text("flashsale")
    expect(page.locator(".opblock")).to_have_count(len(OPERATIONS))
    for operation in OPERATIONS.values():
        expect(page.get_by_text(operation.summary, exact=True)).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "nothing sticks out"


def test_try_it_out(open_page, product):
    page = open_page("/docs", live=False)
    page.get_by_text("Reserve units", exact=True).click()
    body = page.locator("#operations-Holds-place_hold textarea")
    expect(body).to_have_value('{\n  "product_id": 1,\n  "qty": 1\n}')
    body.fill(f'{{"product_id": {product}, "qty": 51}}')
    page.get_by_role("button", name="Execute").click()
    answer = page.locator(".live-responses-table")
    expect(answer).to_contain_text('"code": "insufficient_stock"')
    expect(answer).to_contain_text("x-request-id: checkout-7f3a")


def test_dark_mode(open_page):
    page = open_page("/docs", live=False, color_scheme="dark")
    expect(page.locator("html.dark-mode")).to_be_attached()
    page.emulate_media(color_scheme="light")
    expect(page.locator("html:not(.dark-mode)")).to_be_attached()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_of_a_problem_type(open_page, scheme):
    page = open_page("/problems/insufficient_stock", live=False, viewport=PHONE, color_scheme=scheme)
    expect(page.get_by_role("heading", level=1)).to_have_text("Insufficient stock")
    assert Axe().run(page).violations_count == 0
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "nothing sticks out"
    page.get_by_role("link", name="All calls and problems").click()
    expect(page.get_by_role("heading", level=1)).to_contain_text("flashsale")
