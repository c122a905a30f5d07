"""`flashsale doctor` over several databases: each by itself, and whether they fit together."""

import os
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import psycopg

from flashsale.cli.doctor import print_findings
from flashsale.database.connection import connect, fetch_row, use_database
from flashsale.doctor import slots
from flashsale.doctor.diagnosis import diagnose_database, diagnose_machine
from flashsale.doctor.finding import MIGRATE, Finding, Findings
from flashsale.shards.databases import Database

_READ = """
    select s.slots, s.owned, to_jsonb(t) as settings, r.schema_digest, r.scheduler
      from flashsale.get_shard() s, flashsale.settings t, flashsale.readiness() r
"""


class _State(NamedTuple):
    slots: int
    owned: list[int]
    settings: dict[str, Any]
    schema_digest: str
    scheduler: str


def report(callback: object, arguments: Mapping[str, Any], among: list[Database]) -> None:
    print_findings(list(diagnose(os.environ, among)), as_json=arguments["as_json"])


def diagnose(environment: Mapping[str, str], among: list[Database]) -> Findings:
    """All checks; the name of a shard is in front of those of its own."""
    yield from diagnose_machine(environment)
    states: dict[str, _State] = {}
    for database in among:
        with use_database(database.url):
            for finding in diagnose_database(environment):
                yield replace(finding, check=f"{database.name}: {finding.check}")
        try:
            with connect("doctor", database.url) as conn:
                states[database.name] = _State._make(fetch_row(conn, _READ))
        except psycopg.Error:
            continue  # what its own checks have found
    if len(states) < len(among):
        missing = ", ".join(each.name for each in among if each.name not in states)
        yield Finding(
            "slots",
            "failed",
            f"not compared with {missing}, which cannot be read",
            "correct what it lacks first",
        )
        return
    yield from slots.of_several({name: (state.slots, state.owned) for name, state in states.items()})
    yield from _compare(states)


def _compare(states: Mapping[str, _State]) -> Iterator[Finding]:
    """What must be the same everywhere, as a product may move."""
    (first, expected), *others = states.items()
    is_equal = True
    for name, state in others:
        different = [
            f"{key} is {state.settings[key]}, and {value} on {first}"
            for key, value in expected.settings.items()
            if state.settings.get(key) != value
        ]
        if different:
            is_equal = False
            yield Finding(
                f"{name}: equality", "failed", f"its settings differ: {'; '.join(different)}",
                "give all shards the same: flashsale psql --shard NAME, flashsale.change_settings()",
            )  # fmt: skip
        if state.schema_digest != expected.schema_digest:
            is_equal = False
            yield Finding(
                f"{name}: equality", "failed", f"its functions differ from those of {first}", MIGRATE
            )
    swept = [name for name, state in states.items() if state.scheduler == "alive"]
    for name, state in states.items():
        if swept and state.scheduler in ("not_installed", "not_scheduled"):
            is_equal = False
            yield Finding(
                f"{name}: equality", "failed",
                f"pg_cron does not sweep it ({state.scheduler.replace('_', ' ')}), but {', '.join(swept)}",
                f"install and load pg_cron there, and {MIGRATE}",
            )  # fmt: skip
    if is_equal:
        yield Finding("equality", "ok", "settings and functions of all shards are the same")
