"""The page's estimate of the database's clock."""

import pytest

from tests.page.conftest import Open

CLOCK = """async (steps) => {
    const { ServerClock } = await import("/page/server_clock.js");
    let date = 1_000_000, elapsed = 0;
    Date.now = () => date;
    performance.now = () => elapsed;
    const clock = new ServerClock();
    return steps.map(([step, ...values]) => {
        if (step === "passes") [date, elapsed] = [date + values[0], elapsed + values[0]];
        else if (step === "sleeps") date += values[0];
        else if (step === "isDoubtful") return clock.isDoubtful;
        else if (step === "now") return clock.now();
        else clock[step](...values);
        return null;
    });
}"""
"""A clock of its own, and what it says at each step that asks it."""


@pytest.fixture
def run(open_page: Open):
    page = open_page()

    def run(*steps: tuple) -> list:
        return [value for value in page.evaluate(CLOCK, steps) if value is not None]

    return run


def test_a_response_is_of_the_middle_between_request_and_response(run):
    steps = [("passes", 100), ("addSample", 5_000_000, 0, 100), ("now",), ("passes", 7), ("now",)]
    assert run(*steps) == [5_000_050, 5_000_057]


def test_before_the_first_response_it_is_the_browsers_clock(run):
    assert run(("now",)) == [1_000_000]


def test_the_most_exact_response_counts(run):
    steps = [
        ("passes", 1000),
        ("addSample", 5_000_000, 990, 1000),
        ("addSample", 4_999_900, 0, 1000),
        ("now",),
    ]
    assert run(*steps) == [5_000_005]


def test_a_response_that_contradicts_counts(run):
    steps = [
        ("passes", 1000),
        ("addSample", 5_000_000, 990, 1000),
        ("addSample", 5_900_000, 0, 1000),
        ("now",),
    ]
    assert run(*steps) == [5_900_500]


def test_an_exact_response_does_not_count_for_ever(run):
    """Quartz drifts: after an hour, a response of 20 ms is more exact."""
    hour = 3_600_000
    steps = [("addSample", 0, 0, 2), ("passes", hour), ("addSample", hour + 100, hour - 20, hour), ("now",)]
    assert run(*steps) == [hour + 110]


def test_a_message_of_the_stream_bounds_it(run):
    steps = [("passes", 1000), ("addSample", 5_000_000, 0, 1000), ("addLowerBound", 5_000_700), ("now",)]
    assert run(*steps, ("addLowerBound", 4_000_000), ("now",)) == [5_000_700, 5_000_700]


def test_the_browsers_clock_is_set_while_the_page_is_open(run):
    steps = [
        ("addSample", 5_000_000, 0, 0),
        ("isDoubtful",),
        ("sleeps", -7_200_000),
        ("isDoubtful",),
        ("now",),
    ]
    assert run(*steps) == [False, True, 5_000_000]


def test_after_a_sleep_the_next_response_counts(run):
    steps = [
        ("addSample", 5_000_000, 0, 0), ("sleeps", 60_000), ("isDoubtful",), ("doubt",), ("isDoubtful",),
        ("passes", 2000), ("addSample", 5_061_000, 0, 2000), ("now",),
    ]  # fmt: skip
    assert run(*steps) == [True, False, 5_062_000]
