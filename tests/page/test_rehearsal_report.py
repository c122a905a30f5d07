"""The report of a rehearsal in a browser, from a file."""

import re

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect

from flashsale.rehearsal.report import write
from tests.page.conftest import DESKTOP, PHONE
from tests.page.test_accessibility import SCROLLS_SIDEWAYS
from tests.support.rehearsals import DROP, observed, rehearsal


@pytest.fixture
def open_report(browser, tmp_path):
    write(rehearsal(DROP, bots=3), tmp_path / "report.html")
    context = []

    def open_one(**options):
        context.append(browser.new_context(**options))
        page = context[-1].new_page()
        asked, said = [], []
        page.on("request", lambda request: asked.append(request.url))
        page.on("console", lambda message: said.append(message.text))
        page.goto((tmp_path / "report.html").as_uri())
        assert (len(asked), said) == (1, [])
        return page

    yield open_one
    for one in context:
        one.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("viewport", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_the_report_is_accessible(open_report, viewport, scheme):
    page = open_report(viewport=viewport, color_scheme=scheme)
    assert not page.evaluate(SCROLLS_SIDEWAYS)
    assert page.locator(".plot:visible").count() == 3
    found = Axe().run(page)
    assert found.violations_count == 0, found.generate_report()


def test_tables_are_whole_on_a_phone(open_report, tmp_path):
    """With latencies of more than 10 seconds, too."""
    slow = observed()
    slow.calls = [call._replace(seconds=call.seconds * 300) for call in slow.calls]
    write(rehearsal(DROP, bots=3, observed=slow), tmp_path / "report.html")
    for viewport in (PHONE, {"width": 390, "height": 844}):
        page = open_report(viewport=viewport)
        page.get_by_text("As a table").click()
        assert not page.evaluate(SCROLLS_SIDEWAYS)
        regions = page.get_by_role("region").all()
        assert len(regions) == 6
        for region in regions:
            assert region.evaluate("e => e.scrollWidth <= e.clientWidth"), region.get_attribute("aria-label")
    shown = page.get_by_role("region", name="Latency").get_by_role("row")
    expect(shown.first).to_contain_text(re.compile(r"operation, ms\s*p50\s*p95\s*p99\s*max"))
    expect(shown.filter(has_text="release")).to_contain_text("66,000")


def test_the_report_can_be_printed(open_report):
    page = open_report(viewport=DESKTOP)
    page.emulate_media(media="print")
    assert not page.evaluate(SCROLLS_SIDEWAYS)
    assert len(page.pdf(format="A4")) > 10_000
