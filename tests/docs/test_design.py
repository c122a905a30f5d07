"""docs/design.md: its diagram has exactly the states of the database."""

import re

import psycopg

from tests.support import ROOT

SNAPSHOTS = (
    "select regexp_matches(pg_get_constraintdef(oid), '''(\\w+)''', 'g') from pg_constraint"
    " where conname in ('holds_status', 'orders_status')"
)


def test_the_diagram_shows_every_state_and_no_other(db: psycopg.Connection) -> None:
    drawn = re.findall(r'class="name".*?>(\w+)<', (ROOT / "docs/states.svg").read_text())
    assert sorted(drawn) == sorted(state for ((state,),) in db.execute(SNAPSHOTS))
