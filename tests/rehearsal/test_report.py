"""The report of a rehearsal: one file that needs no other, and says all there is to say."""

import re
from html.parser import HTMLParser

import pytest

from flashsale.rehearsal.report import carried, command, html, milliseconds
from flashsale.rehearsal.run import Options
from tests.support.rehearsals import books, rehearsal, seen


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


def test_it_needs_nothing_from_elsewhere(page):
    assert not {tag for tag, _ in page.elements} & {"script", "link", "img", "iframe", "object"}
    for _, attributes in page.elements:
        for name in ("href", "src", "xlink:href"):
            assert (attributes.get(name) or "#").startswith("#")
    assert "@import" not in page.text and "url(" not in page.text.replace("url(#", "")


def test_every_picture_is_told_in_words_for_a_wide_page_and_for_a_phone(page):
    told = [attributes["aria-label"] for _, attributes in page.elements if attributes.get("role") == "img"]
    assert len(told) == 6
    assert told[::2] == told[1::2]
    assert told[0].startswith("Of 3 units, none was left after 0.5 seconds. After 2.0 seconds 3 were paid")
    assert "hold: half within" in told[4]
    assert [tag for tag, _ in page.elements].count("svg") == 6


def test_no_name_is_on_the_page_twice(page):
    names = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(names) == len(set(names))


def test_pictures_are_in_the_colours_of_the_page(page):
    drawn = " ".join(attributes.get("style") or "" for _, attributes in page.elements)
    named = set(re.findall(r"var\(--(\w+)\)", drawn))
    assert {"paid", "held", "awaiting", "available", "ink", "quiet", "line"} <= named
    assert not re.findall(r"#[0-9a-f]{6}", drawn)
    for name in named:
        assert f"--{name}:" in page.text


def test_it_says_what_was_checked_and_what_stays_behind(page):
    assert "3 of 3 sold, every check held" in page.text
    for check in rehearsal().checks:
        assert check.name in page.text and check.detail in page.text
    assert "Rehearsal <of> & more" in page.text
    assert "1 refunds due" in page.text
    assert "A note." in page.text
    assert "503 overloaded" in page.text


def test_a_failed_check_is_its_headline():
    wrong = books()
    wrong.refunds.clear()
    page = Page(html(rehearsal(books=wrong)))
    assert "1 of 10 checks failed" in page.text
    assert "every check held" not in page.text


def test_a_sale_in_which_nothing_was_answered_still_has_a_report():
    silent = seen()
    silent.calls = [call._replace(status=0) for call in silent.calls]
    assert "10 of 10" not in Page(html(rehearsal(seen=silent))).text


@pytest.mark.parametrize(
    ("load", "said"),
    [
        ((2, 1.9, 0.95), "could not come any faster"),
        ((8, 1.9, 0.5), "with more --at-once"),
        ((2, 1.9, 0.5), "Real buyers bring their own"),
    ],
)
def test_what_the_machine_can_carry_depends_on_what_was_short(load, said):
    made = rehearsal()
    assert said in carried(made.__class__(**(vars(made) | {"load": made.load.__class__(*load)})))


def test_the_command_brings_the_same_buyers_again():
    options = rehearsal().options
    assert command(options) == "flashsale rehearse --buyers=6 --stock=3 --at-once=4 --late=10 --seed=7"
    lapsing = Options(**(vars(options) | {"lapse": 2.5}))
    assert command(lapsing).endswith(" --late=10 --lapse=2.5 --seed=7")


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0.00082, "0.82 ms"), (0.0041, "4.1 ms"), (0.017, "17 ms"), (1.24, "1,240 ms")],
)
def test_milliseconds_have_the_digits_that_matter(seconds, said):
    assert milliseconds(seconds) == said
