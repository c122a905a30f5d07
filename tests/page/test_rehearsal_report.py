"""The report of a rehearsal in a browser, from a file."""

import pytest
from axe_playwright_python.sync_playwright import Axe

from tests.page.conftest import DESKTOP, PHONE
from tests.page.test_accessibility import SCROLLS_SIDEWAYS
from tests.support.rehearsals import rehearsal


@pytest.fixture
def open_report(browser, tmp_path):
    from flashsale.rehearsal.report import write

    write(rehearsal(), tmp_path / "report.html")
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


def test_the_report_can_be_printed(open_report):
    page = open_report(viewport=DESKTOP)
    page.emulate_media(media="print")
    assert not page.evaluate(SCROLLS_SIDEWAYS)
    assert len(page.pdf(format="A4")) > 10_000
