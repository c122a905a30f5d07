"""docs/reference.md: its rendered parts are current, and its tables agree with the code."""

import re
from pathlib import Path

import psycopg
import pytest

from api import stock_feed
from api.database import batching, client, connection
from api.schemas import webhook_body
from api.server import admission
from docs.render import REFERENCE, render
from tests.support import ROOT
from tests.support.database import emptied_database

shared, postgresql = emptied_database("flashsale_reference")

TEXT = REFERENCE.read_text()
DOMAIN = (
    "select regexp_matches(pg_get_constraintdef(oid), '''(\\w+)''', 'g')"
    " from pg_constraint where conname = %s"
)


def rows(heading: str) -> list[list[str]]:
    """The cells of all tables of a section."""
    section = re.search(rf"^#+ {heading}\n(.*?)(?=^#|\Z)", TEXT, re.DOTALL | re.MULTILINE)[1]
    lines = [line.strip("| ").split(" | ") for line in section.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line] for line in lines]


def first_cells(heading: str) -> set[str]:
    """The names set as code in the first column."""
    return {name for first, *_ in rows(heading) for name in re.findall(r"`(\w+)`", first)}


def test_its_rendered_parts_are_current(db: psycopg.Connection) -> None:
    assert render(TEXT, db) == TEXT, "run: .venv/bin/python -m docs.render"


def test_every_function_a_caller_can_reach_is_there(db: psycopg.Connection) -> None:
    there = re.findall(r"^### (\w+)$", TEXT, re.MULTILINE)
    names = db.execute(
        "select proname from pg_proc where pronamespace = 'flashsale'::regnamespace"
    ).fetchall()
    assert sorted(there) == sorted(name for (name,) in names)


def test_every_argument_is_explained_and_none_that_is_not(db: psycopg.Connection) -> None:
    arguments = db.execute(
        "select distinct a from pg_proc p cross join unnest(p.proargnames) a"
        " where p.pronamespace = 'flashsale'::regnamespace and a like 'p\\_%'"
    ).fetchall()
    explained = {name for name in first_cells("SQL") if name.startswith("p_")}
    forms = {(name, name.removesuffix("s"), name.removesuffix("es")) for (name,) in arguments}
    assert [form for form in forms if not explained & {*form}] == []
    assert explained <= {name for form in forms for name in form}


@pytest.mark.parametrize("path", sorted((ROOT / "sql").glob("[po][up]*/*.sql")), ids=lambda path: path.stem)
def test_the_comment_of_a_function_names_every_refusal_of_its_body(path: Path) -> None:
    comment, _, body = path.read_text().partition("create or replace")
    assert set(re.findall(r"'(SA\d{3})'", body)) <= set(re.findall(r"SA\d{3}", comment))


def test_event_kinds_are_those_of_the_ledger(db: psycopg.Connection) -> None:
    kinds = {kind for ((kind,),) in db.execute(DOMAIN, ("events_kind",))}
    assert first_cells("The ledger") == kinds


def test_payment_results_are_those_there_are(db: psycopg.Connection) -> None:
    results = {result for ((result,),) in db.execute(DOMAIN, ("payments_result",))}
    section = TEXT[TEXT.index("## Payments") : TEXT.index("## The ledger")]
    assert {result for result in results if f"`{result}`" in section} == results


def test_reasons_and_statuses_of_refunds_are_those_of_the_tables(db: psycopg.Connection) -> None:
    reasons = {reason for ((reason,),) in db.execute(DOMAIN, ("payments_refund_reason",))}
    statuses = {status for ((status,),) in db.execute(DOMAIN, ("refunds_status",))}
    cancelled = {"payment_failed", "payment_overdue"}
    assert first_cells("Payments") - cancelled == reasons
    assert first_cells("Money back") == statuses


def test_checks_are_those_of_the_audit() -> None:
    audit = (ROOT / "sql/operators/audit.sql").read_text()
    assert first_cells("The audit") == set(re.findall(r"^  select '(\w+)',", audit, re.MULTILINE))


def test_settings_defaults_and_ranges_are_those_of_the_database(db: psycopg.Connection) -> None:
    defaults = db.execute("select to_jsonb(s) from flashsale.settings s").fetchone()[0]
    table = [row for row in rows("Settings") if row[0].strip("`") in defaults]
    assert {row[0].strip("`") for row in table} == set(defaults)
    for name, default, span, *_ in table:
        name = name.strip("`")
        with db.transaction(force_rollback=True), pytest.raises(psycopg.Error) as refused:
            is_number = name.endswith("_limit") or name.startswith("max_")
            wrong = "-1" if is_number else "10 years"
            db.execute(f"select flashsale.change_settings(p_{name} => '{wrong}')")
        assert refused.value.diag.message_detail == f"{name} is {span}."
        same = "select s.{0}::text = %s or s.{0}::text = (%s::interval)::text from flashsale.settings s"
        if is_number:
            assert default == str(defaults[name])
        else:
            assert db.execute(same.format(name), (default, default)).fetchone()[0]


def test_limits_are_those_of_the_constants() -> None:
    limits = batching.Limits()
    batch_size = (ROOT / "sql/internal/batch_size.sql").read_text()
    constants = {
        "c_most": int(re.search(r"c_most constant int := (\d+);", batch_size)[1]),
        "Limits.max_batch_size": limits.max_batch_size,
        "Limits.max_queue_size": limits.max_queue_size,
        "Limits.max_slow_queue_size": limits.max_slow_queue_size,
        "Limits.queue_timeout": limits.queue_timeout,
        "Limits.response_timeout": limits.response_timeout,
        "Limits.contention_ttl": limits.contention_ttl,
        "FAST_LOCK_TIMEOUT_MS": client.FAST_LOCK_TIMEOUT_MS,
        "SLOW_LOCK_TIMEOUT_MS": client.SLOW_LOCK_TIMEOUT_MS,
        "STATEMENT_TIMEOUT_MS": connection.STATEMENT_TIMEOUT_MS / 1000,
        "MAX_CONCURRENT_REQUESTS": admission.MAX_CONCURRENT_REQUESTS,
        "MAX_WAIT_SECONDS": admission.MAX_WAIT_SECONDS,
        "MAX_WEBHOOK_BYTES": webhook_body.MAX_WEBHOOK_BYTES / 1024,
        "MAX_LARGE_BODIES_BYTES": webhook_body.MAX_LARGE_BODIES_BYTES / 1024 / 1024,
        "max_subscribers": stock_feed.Limits().max_subscribers,
    }
    documented = {}
    for values, names, *_ in rows("Settings"):
        if values[0].isdigit():
            numbers = [float(number.replace(",", "")) for number in re.findall(r"[\d,.]*\d", values)]
            documented |= zip(re.findall(r"`([\w.]+)`", names), numbers, strict=True)
    assert documented == constants


def test_variables_are_those_that_the_code_reads() -> None:
    code = [ROOT / "gunicorn.conf.py", *(ROOT / "api").rglob("*.py"), *(ROOT / "flashsale").rglob("*.py")]
    read = {name for path in code for name in re.findall(r"\bFLASHSALE_[A-Z_]+\b", path.read_text())}
    assert first_cells("Settings") >= read | {"WEB_CONCURRENCY"}
    assert {name for name in first_cells("Settings") if name.startswith("FLASHSALE_")} == read
