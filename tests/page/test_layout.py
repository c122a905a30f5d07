"""What fits where on the page, and what it shows while a request is in progress."""

import pytest
from playwright.sync_api import Page, Route, expect

from tests.page.conftest import DESKTOP, PHONE
from tests.page.test_accessibility import SCROLLS_SIDEWAYS, sale_states, states
from tests.page.test_checkout import expect_message, logged, press, units

WIDE_PHONE = {"width": 390, "height": 844}
LONGEST_NAME = 200

STICKS_OUT = """() => [...document.body.querySelectorAll("*")]
    .filter((e) => e.checkVisibility() && !e.closest(".unseen, .scroll table, svg"))
    .map((e) => [e.getBoundingClientRect(), e.outerHTML.slice(0, 200)])
    .filter(([box]) => box.width && (box.right > innerWidth + 0.5 || box.left < -0.5))
    .map(([, html]) => html)
"""
"""Elements that reach over an edge of the screen."""

PLOT = """async ([stock, ...after]) => {
    const { Plot } = await import("/page/plot.js");
    let now = 1_000_000;
    const plot = new Plot(() => now);
    plot.add([{ t: now, available: stock, held: 0, awaiting: 0, paid: 0 }]);
    return after.map((seconds) => {
        now = 1_000_000 + seconds * 1000;
        plot.draw();
        const boxes = (selector) => [...plot.svg.querySelectorAll(selector)].map((e) => {
            const { x, y, width, height } = e.getBBox();
            return { text: e.textContent, left: x, right: x + width, top: y, bottom: y + height };
        });
        return {
            labels: boxes("text"), lines: boxes("line.grid"), area: boxes("path.available")[0],
            width: plot.box.clientWidth,
            behind: plot.svg.firstElementChild.querySelector("line.grid") !== null,
        };
    });
}"""
"""A plot of its own, `after` so many seconds of one sample."""


def new_product(db, name: str, stock: int = 50) -> int:
    return db.execute("select flashsale.create_product(%s, %s, 99)", (name, stock)).fetchone()[0]


@pytest.mark.parametrize("name", ["W" * LONGEST_NAME, ("Limited sneaker " * 20)[:LONGEST_NAME]])
@pytest.mark.parametrize("viewport", [WIDE_PHONE, PHONE], ids=["390", "360"])
def test_nothing_runs_off_a_phone(open_page, db, viewport, name):
    product = new_product(db, name.strip(), 1_000_000)
    page = open_page(f"/?product={product}", viewport=viewport)
    page.reload()  # there is more than one product now: their menu is shown
    expect(page.get_by_label("Product")).to_be_visible()
    for state in states(page, more=2_000_000):
        assert page.evaluate(STICKS_OUT) == [], state
        assert not page.evaluate(SCROLLS_SIDEWAYS), state
    for state in sale_states(page, db, product):
        assert page.evaluate(STICKS_OUT) == [], state
        assert not page.evaluate(SCROLLS_SIDEWAYS), state


def intersect(one: dict, other: dict) -> bool:
    return (
        one["left"] < other["right"]
        and other["left"] < one["right"]
        and one["top"] < other["bottom"]
        and other["top"] < one["bottom"]
    )


@pytest.mark.parametrize("stock", [1, 50, 1_000_000])
@pytest.mark.parametrize("viewport", [PHONE, WIDE_PHONE, DESKTOP], ids=["360", "390", "desktop"])
def test_labels_of_the_plot_do_not_collide(open_page, viewport, stock):
    page = open_page(viewport=viewport)
    moments = [*(tenths / 10 for tenths in range(0, 300, 7)), 45, 59, 61, 75, 90, 119, 121, 300]
    for seconds, plot in zip(moments, page.evaluate(PLOT, [stock, *moments]), strict=True):
        labels = plot["labels"]
        assert len({label["text"] for label in labels}) == len(labels) >= 3, (seconds, labels)
        for index, label in enumerate(labels):
            assert label["left"] >= -0.5 and label["right"] <= plot["width"] + 0.5, (seconds, label)
            for other in labels[:index]:
                assert not intersect(label, other), (seconds, label, other)
        assert sum("ago" in label["text"] for label in labels) >= (seconds > 2.5), (seconds, labels)


def test_the_first_sample_fills_the_plot(open_page):
    for plot in open_page().evaluate(PLOT, [50, 0, 0.1, 0.9, 3, 30, 119, 500]):
        scale = max(label["right"] for label in plot["labels"] if label["text"].isdigit())
        assert plot["area"]["left"] - scale < 10
        assert plot["width"] - plot["area"]["right"] < 5


def test_gridlines_are_behind_the_areas(open_page):
    (plot,) = open_page().evaluate(PLOT, [50, 10])
    assert plot["behind"] and len(plot["lines"]) > 6


@pytest.mark.parametrize("viewport", [WIDE_PHONE, PHONE, {"width": 390, "height": 600}])
def test_the_next_step_is_in_sight_on_a_phone(open_page, db, viewport):
    name = ("Limited sneaker " * 20)[:LONGEST_NAME].strip()
    page = open_page(f"/?product={new_product(db, name)}", viewport=viewport)
    # Or the button is at the upper edge of the page, and cannot be at the lower edge of a high screen.
    page.evaluate("document.body.style.paddingTop = '2000px'")

    def press_at_the_edge(button: str, next_button: str) -> None:
        """Press a button at the lower edge of the screen: what follows it is below."""
        found = page.get_by_role("button", name=button, exact=True)
        found.evaluate("e => e.scrollIntoView({ block: 'end' })")
        found.click()
        expect(page.get_by_role("button", name=next_button, exact=True)).to_be_in_viewport(ratio=1)
        expect(page.locator("#message")).to_be_in_viewport(ratio=1)

    press_at_the_edge("Reserve", "Order")
    expect_message(page, "Reserved 1 unit.")
    press_at_the_edge("Order", "Pay")
    expect_message(page, "It awaits 99.00 USD.")
    press_at_the_edge("Let it fail", "Start again")


def test_buyer_tester_and_operator_have_sections_of_their_own(buyer):
    sections = {
        "Limited sneaker": ("Buyer", ["One fewer", "One more", "Reserve"]),
        "What can go wrong": (
            "Tester",
            [
                "Order, payment first", "Let it lapse", "Decline the card", "Pay, sent twice", "Let it fail",
                "Cancel it", "Repeat the last webhook", "Pay once more",
            ],
        ),
        "The sale as it goes": ("Operator", []),
        "Requests and responses": ("Tester", []),
    }  # fmt: skip
    for name, (role, buttons) in sections.items():
        section = buyer.get_by_role("region", name=name, exact=True)
        expect(section.locator(".role")).to_contain_text(role)
        expect(section.get_by_role("heading", name=name, exact=True)).to_be_visible()
        names = [
            one.get_attribute("aria-label") or one.text_content()
            for one in section.locator("button:visible").all()
        ]
        assert names == buttons


def test_a_case_can_be_tested_at_its_step_only(buyer):
    def enabled() -> list[str]:
        return buyer.locator("#tests button:enabled").all_text_contents()

    assert enabled() == []
    press(buyer, "Reserve")
    expect_message(buyer, "Reserved 1 unit.")
    assert enabled() == ["Order, payment first", "Let it lapse"]
    press(buyer, "Order")
    expect_message(buyer, "It awaits")
    assert enabled() == ["Decline the card", "Pay, sent twice", "Let it fail", "Cancel it"]
    press(buyer, "Pay")
    expect_message(buyer, "is paid.")
    assert enabled() == ["Repeat the last webhook", "Pay a second time"]
    buyer.reload()
    expect(buyer.locator("#done-title")).to_contain_text("is paid")
    assert enabled() == ["Pay a second time"], "the page does not remember the last webhook"


def held_request(page: Page, path: str) -> list[Route]:
    """The next request to `path`, which waits until the test lets it go on."""
    routes: list[Route] = []
    page.route(path, lambda route: routes.append(route), times=1)
    return routes


def test_a_request_in_progress_is_shown(buyer, db, product):
    waiting = held_request(buyer, "**/api/holds")
    reserve = buyer.get_by_role("button", name="Reserve", exact=True)
    with buyer.expect_request("**/api/holds"):
        reserve.click()
    expect(buyer.locator("#steps")).to_have_attribute("aria-busy", "true")
    expect(reserve).to_have_attribute("data-pressed", "")
    for button in buyer.locator("#steps button, #tests button").all():
        expect(button).to_have_attribute("aria-disabled", "true")
    expect(buyer.locator("#waiting")).to_have_text("Waiting for the server…")
    expect(reserve).to_be_focused()
    reserve.dispatch_event("click")  # Playwright would wait until it is enabled
    waiting[0].continue_()
    expect_message(buyer, "Reserved 1 unit.")
    expect(buyer.locator("[aria-busy], [aria-disabled], [data-pressed]")).to_have_count(0)
    expect(buyer.locator("#waiting")).to_be_empty()
    assert len(logged(buyer)) == 1, "the second press was ignored"
    assert units(db, product) == (49, 1, 0, 0)


def test_a_press_waits_for_what_the_page_asks_by_itself(buyer):
    press(buyer, "Reserve")
    press(buyer, "Order")
    expect_message(buyer, "It awaits")
    waiting = held_request(buyer, "**/api/orders/*")
    with buyer.expect_request("**/api/orders/*"):
        buyer.evaluate("document.dispatchEvent(new Event('visibilitychange'))")  # it asks for the order
    press(buyer, "Pay")
    expect(buyer.locator("#steps")).to_have_attribute("aria-busy", "true")
    waiting[0].continue_()
    expect_message(buyer, "is paid.")
