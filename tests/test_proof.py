"""What `make proof` writes down."""

from pathlib import Path

from proof.__main__ import Outcome, markdown
from proof.campaign import Row


def outcome(promise: str, *tried: str, passed: bool = True) -> Outcome:
    rows = [Row(promise, what, "all", 1) for what in tried]
    return Outcome(promise, passed, 9.6, rows, Path("log"))


def rows(text: str) -> list[list[str]]:
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.split("|")[1:6]] for line in lines[1:]]


def test_a_run_of_one_promise_keeps_what_is_known_of_the_others() -> None:
    whole = markdown([outcome("time", "to step back", "to wait"), outcome("soak", passed=False)], 7, "")
    assert rows(whole) == [
        ["time", "to step back", "all", "10", "7"],
        ["time", "to wait", "all", "", "7"],
        ["soak", "the rest", "FAILED", "10", "7"],
    ]
    again = markdown([outcome("soak", "20 minutes")], 8, whole)
    assert rows(again) == [*rows(whole)[:2], ["soak", "20 minutes", "all", "10", "8"]]
