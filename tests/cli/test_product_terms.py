"""`flashsale product create`, `terms`, `pause` and `resume`: the terms of a sale."""

import json
import re
from datetime import UTC, datetime, timedelta

import click
import pytest

from flashsale.cli.types import DURATION, parse_instant
from tests.support.sale_steps import create_product, one

TEN_IN_BERLIN = datetime(2026, 11, 28, 9, tzinfo=UTC)


def test_a_product_is_created_with_its_terms(flashsale, db):
    result = flashsale(
        "product", "create", "Drop", "--stock", 5, "--price", "99", "--starts-at", "2126-11-28T10:00+01:00",
        "--ends-at", "2126-11-28 12:00 Europe/Berlin", "--limit", 2, "--max-per-hold", 3, "--group", "drops",
        "--hold-time", "90s", "--payment-window", "10min", "--unlisted",
    )  # fmt: skip
    assert (result.exit_code, result.stdout) == (0, "product 1: Drop, 5 in stock at 99 USD\n")
    (terms,) = json.loads(flashsale("product", "terms", 1, "--json").stdout)
    assert terms | {"now": None} == {
        "product_id": 1, "name": "Drop", "sale_status": "scheduled", "starts_at": "2126-11-28T09:00:00Z",
        "ends_at": "2126-11-28T11:00:00Z", "max_per_buyer": 2, "limit_group": "drops", "max_per_hold": 3,
        "hold_time": 90.0, "payment_window": 600.0, "listed": False, "now": None,
    }  # fmt: skip


def test_without_terms_a_product_is_on_sale_with_10_units_in_a_hold(flashsale, db):
    flashsale("product", "create", "Shoe", "--stock", 5, "--price", "99")
    flashsale("product", "create", "Sock", "--stock", 5, "--price", "9", "--max-per-hold", "none")
    lines = flashsale("product", "terms", 2, 1).stdout.splitlines()
    assert [line.split() for line in lines[1:]] == [
        ["1", "Shoe", "open", "10", "True"],
        ["2", "Sock", "open", "True"],
    ]


def test_terms_are_changed_and_lifted(flashsale, db):
    create_product(db), create_product(db)
    options = [
        "--starts-at", "2026-01-01T00Z", "--ends-at", "2126-01-01T00Z", "--limit", 2, "--group", "a",
        "--hold-time", "5min", "--payment-window", "1h", "--max-per-hold", 4, "--unlisted",
    ]  # fmt: skip
    changed = json.loads(flashsale("product", "terms", 1, 2, *options, "--json").stdout)
    assert [row["product_id"] for row in changed] == [1, 2]
    assert {
        (row["limit_group"], row["max_per_buyer"], row["max_per_hold"], row["listed"]) for row in changed
    } == {("a", 2, 4, False)}
    (row,) = json.loads(flashsale("product", "terms", 1, "--limit", 3, "--json").stdout)
    assert row == changed[0] | {"max_per_buyer": 3, "now": row["now"]}
    names = [name for name in options if str(name).startswith("--") and name != "--unlisted"]
    lifted = json.loads(
        flashsale(
            "product", "terms", 1, *(x for n in names for x in (n, "none")), "--listed", "--json"
        ).stdout
    )
    terms = (
        "starts_at",
        "ends_at",
        "max_per_buyer",
        "limit_group",
        "hold_time",
        "payment_window",
        "max_per_hold",
    )
    assert {lifted[0][name] for name in terms} == {None}
    assert (lifted[0]["listed"], lifted[0]["sale_status"]) == (True, "open")


def test_terms_that_contradict_each_other_change_nothing(flashsale, db):
    create_product(db)
    result = flashsale("product", "terms", 1, 2, "--limit", 2)
    assert result.exit_code == 1
    assert result.stderr.startswith("Error: Product not found: ")
    result = flashsale("product", "terms", 1, "--starts-at", "2126-01-02T00Z", "--ends-at", "2126-01-01T00Z")
    assert result.exit_code == 1
    assert result.stderr.startswith("Error: Invalid request: ")
    assert one(db, "select num_nonnulls(starts_at, ends_at, max_per_buyer) from flashsale.terms") == 0
    assert flashsale("product", "terms", 7).stderr == "Error: there is no product 7\n"


def test_a_sale_is_paused_and_resumed(flashsale, db):
    create_product(db), create_product(db)
    lines = flashsale("product", "pause", 1, 2).stdout.splitlines()
    assert [line.split()[2] for line in lines[1:]] == ["paused", "paused"]
    assert json.loads(flashsale("product", "resume", 2, "--json").stdout)[0]["sale_status"] == "open"
    assert one(db, "select array_agg(sale_status order by product_id) from flashsale.terms") == [
        "paused",
        "open",
    ]
    assert flashsale("product", "pause", 3).stderr.startswith("Error: Product not found: ")


def test_a_repeated_key_with_other_terms_is_refused(flashsale, db):
    words = [
        "product",
        "create",
        "Drop",
        "--stock",
        5,
        "--price",
        9,
        "--key",
        "drop",
        "--starts-at",
        "2126-01-01T00Z",
    ]
    assert flashsale(*words).stdout == flashsale(*words).stdout
    # The same instant in another zone.
    same = [*words[:-1], "2126-01-01T01:00+01:00"]
    assert flashsale(*same).exit_code == 0
    other = flashsale(*words[:-1], "2126-01-02T00Z")
    assert (other.exit_code, other.stderr.startswith("Error: Idempotency key reused: ")) == (1, True)


# Times.


@pytest.mark.parametrize(
    "text",
    [
        "2026-11-28T10:00+01:00", "2026-11-28T10:00:00+01:00", "2026-11-28 10:00:00.000+0100",
        "2026-11-28T10+01", "2026-11-28T09:00Z", "2026-11-28t09:00z", "2026-11-28 09:00 Z",
        "20261128T090000Z", "20261128T0900Z", "2026-W48-6T09:00Z", "2026W486T0900Z", "2026-332T09:00Z",
        "2026332T0900Z",
        "2026-11-28T09:00:00,0Z", "2026-11-28T03:00-06:00", "2026-11-28T03:00\u221206:00",
        "2026-11-28 10:00 Europe/Berlin", "2026-11-28T10:00[Europe/Berlin]", "2026-11-28 09:00 UTC",
        "2026-11-28T10:00+01:00[Europe/Berlin]", "2026-11-28T10:00+01:00 Europe/Berlin",
        "2026-11-28 04:00 America/New_York", " 2026-11-28T09:00Z ",
    ],
)  # fmt: skip
def test_a_time_in_any_form_of_iso_8601_with_its_zone(text):
    assert parse_instant(text) == TEN_IN_BERLIN


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("2026-11-28T10:00", "has no time zone; add an offset, Z or a name"),
        ("2026-11-28", "has no time zone"),
        ("20261128T100000", "has no time zone"),
        ("ten o'clock", "is not a time in ISO 8601 with its zone"),
        ("", "is not a time in ISO 8601"),
        ("28.11.2026 10:00 Europe/Berlin", "is not a time in ISO 8601"),
        ("2026-13-28T10:00Z", "is not a time in ISO 8601"),
        ("2026-02-29T10:00Z", "is not a time in ISO 8601"),
        ("1796000000", "is not a time in ISO 8601"),
        ("infinity", "is not a time in ISO 8601"),
        ("2026-11-28 10:00 Europe/Berln", "'Europe/Berln' is not a time zone"),
        ("2026-11-28 10:00 Europe", "'Europe' is not a time zone"),
        ("2026-11-28 10:00 ../../etc/passwd", "is not a time"),
        ("2026-10-25 02:30 Europe/Berlin", "occurs twice"),
        ("2027-03-28 02:30 Europe/Berlin", "does not exist: the clocks of Europe/Berlin skip it"),
        ("2026-11-28T10:00+02:00[Europe/Berlin]", "Europe/Berlin has another offset at that time"),
        ("0001-01-01T00:00+14:00", "is out of range"),
        ("9999-12-31T23:59-12:00", "is out of range"),
    ],
)
def test_a_time_that_is_not_one_instant_is_refused_with_a_sentence(text, said):
    with pytest.raises(ValueError, match=re.escape(said)):
        parse_instant(text)


def test_an_offset_tells_apart_what_occurs_twice():
    first = parse_instant("2026-10-25T02:30+02:00[Europe/Berlin]")
    assert parse_instant("2026-10-25T02:30+01:00[Europe/Berlin]") - first == timedelta(hours=1)


def test_a_time_without_a_zone_is_wrong_usage(flashsale, db):
    result = flashsale(
        "product", "create", "Drop", "--stock", 1, "--price", 1, "--starts-at", "2026-11-28 10:00"
    )
    assert result.exit_code == 2
    assert "'2026-11-28 10:00' has no time zone; add an offset, Z or a name" in " ".join(
        result.stderr.split()
    )
    assert one(db, "select count(*) from flashsale.stock") == 0


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90s", 90),
        ("90 s", 90),
        ("2min", 120),
        ("2m", 120),
        ("1h30min", 5400),
        ("2 hours", 7200),
        ("1d", 86400),
    ],
)
def test_a_duration_has_a_unit(text, seconds):
    assert DURATION.convert(text, None, None) == timedelta(seconds=seconds)


@pytest.mark.parametrize("text", ["90", "", "soon", "-5s", "1.5h", "1w", "99999999d"])
def test_what_is_no_duration_is_refused(text):
    with pytest.raises(click.BadParameter):
        DURATION.convert(text, None, None)
