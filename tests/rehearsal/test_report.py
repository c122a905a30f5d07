"""The report of a rehearsal: self-contained and complete."""

import re
from html.parser import HTMLParser

import pytest

from flashsale.rehearsal.buyers import BOT
from flashsale.rehearsal.observations import Outcome
from flashsale.rehearsal.report import (
    bot_figures,
    bots,
    capacity,
    command,
    html,
    milliseconds,
    opening,
    opening_figures,
)
from flashsale.rehearsal.run import Options
from tests.support.rehearsals import DROP, START, observed, purchase, rehearsal, state


class Page(HTMLParser):
    """Every element with its attributes, and all text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += data


@pytest.fixture(scope="module")
def page() -> Page:
    return Page(html(rehearsal()))


def test_it_has_no_external_resources(page):
    assert not {tag for tag, _ in page.elements} & {"script", "link", "img", "iframe", "object"}
    for _, attributes in page.elements:
        for name in ("href", "src", "xlink:href"):
            assert (attributes.get(name) or "#").startswith("#")
    assert "@import" not in page.text and "url(" not in page.text.replace("url(#", "")


def test_every_plot_has_a_text_alternative_for_wide_and_narrow_pages(page):
    labels = [attributes["aria-label"] for _, attributes in page.elements if attributes.get("role") == "img"]
    assert len(labels) == 6
    assert labels[::2] == labels[1::2]
    assert labels[0].startswith(
        "Of 3 units, none was available after 0.5 seconds. After 2.0 seconds 3 were paid"
    )
    assert "hold: median" in labels[4]
    assert [tag for tag, _ in page.elements].count("svg") == 6


def test_ids_are_unique(page):
    names = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(names) == len(set(names))


def test_plots_use_the_colours_of_the_page(page):
    drawn = " ".join(attributes.get("style") or "" for _, attributes in page.elements)
    named = set(re.findall(r"var\(--(\w+)\)", drawn))
    assert {"paid", "held", "awaiting", "available", "ink", "muted", "line"} <= named
    assert not re.findall(r"#[0-9a-f]{6}", drawn)
    for name in named:
        assert f"--{name}:" in page.text


def test_it_lists_the_checks_and_what_remains(page):
    assert "3 of 3 sold, all checks passed" in page.text
    for check in rehearsal().checks:
        assert check.name in page.text and check.detail in page.text
    assert "Rehearsal <of> & more" in page.text
    assert "of 1 payments to return 1 were still due" in " ".join(page.text.split())
    assert "All of it has been removed." in " ".join(page.text.split())
    assert "A note." in page.text
    assert "503 overloaded" in page.text


def test_the_headline_counts_failed_checks():
    wrong = state()
    wrong.due.clear()
    page = Page(html(rehearsal(state=wrong)))
    assert "1 of 10 checks failed" in page.text
    assert "all checks passed" not in page.text


def test_a_sale_without_responses_has_a_report():
    silent = observed()
    silent.calls = [call._replace(status=0) for call in silent.calls]
    assert "10 of 10" not in Page(html(rehearsal(observed=silent))).text


def test_the_start_and_the_bots_have_figures():
    seen = observed()
    seen.purchases.append(purchase(7, Outcome.BOUGHT, BOT, order=False))
    seen.purchases[-1].qty = 2
    made = rehearsal(DROP, bots=3, observed=seen)
    assert opening_figures(made) == {
        "starts_at": START, "first_hold_after_seconds": 0.01, "early_requests_refused": 2, "of_bots": 1,
    }  # fmt: skip
    assert bot_figures(made) == {
        "bots": 3, "accounts": 1, "requests": 2, "early": 1, "limit_reached": 1, "sold_out": 0, "holds": 1,
        "units_bought": 2,
    }  # fmt: skip
    assert opening(made) == "first hold 10 ms after it, 2 early requests refused"
    assert bots(made) == "2 requests of 3 bots with 1 account, 1 refused for the limit; they bought 2 units"
    text = Page(html(made)).text
    assert "Start and bots" in text
    assert "start of the sale20:15:05.000 UTC" in text
    assert "10 ms later" in text
    assert "with 1 account3\n" in text


def test_without_start_and_bots_there_are_no_figures(page):
    made = rehearsal()
    assert (opening_figures(made), bot_figures(made), opening(made), bots(made)) == (None, None, "", "")
    assert "Start and bots" not in page.text


@pytest.mark.parametrize(
    ("cpu", "message"),
    [
        ((2, 1.9, 0.95), "were the bottleneck"),
        ((8, 1.9, 0.5), "a higher --concurrency"),
        ((2, 1.9, 0.5), "Without the simulated buyers"),
    ],
)
def test_the_capacity_names_the_bottleneck(cpu, message):
    made = rehearsal()
    assert message in capacity(made.__class__(**(vars(made) | {"cpu": made.cpu.__class__(*cpu)})))


def test_the_command_repeats_the_rehearsal():
    options = rehearsal().options
    assert command(options) == "flashsale rehearse --buyers=6 --stock=3 --concurrency=4 --late=10 --seed=7"
    drop = rehearsal(DROP).options
    assert command(drop).endswith(" --late=10 --limit=2 --starts-in=5s --seed=7")
    lapsing = Options(**(vars(options) | {"lapse_after": 2.5}))
    assert command(lapsing).endswith(" --late=10 --lapse-after=2.5 --seed=7")


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.00082, "0.82 ms"), (0.0041, "4.1 ms"), (0.017, "17 ms"), (1.24, "1,240 ms")]
)
def test_milliseconds_have_two_significant_digits(seconds, text):
    assert milliseconds(seconds) == text
