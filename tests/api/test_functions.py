"""Array literals: PostgreSQL reads the same values that were written."""

import psycopg

from api.database.functions import CREATE_ORDERS, PLACE_HOLDS

KEYS = [
    "plain", None, "NULL", "null", "", "{}", 'quo"te', "back\\slash", "a,b", " spaced ", "'", "ключ", "%s",
    "\n",
]  # fmt: skip


def test_texts_in_an_array_literal(db: psycopg.Connection) -> None:
    _, _, literal = CREATE_ORDERS.parameters([(1, key) for key in KEYS])
    assert db.execute("select %s::text[]", (literal,)).fetchone() == (KEYS,)


def test_integers_in_an_array_literal(db: psycopg.Connection) -> None:
    numbers, products, quantities, _ = PLACE_HOLDS.parameters([(2**63 - 1, 1, None), (1, 2**31 - 1, None)])
    row = db.execute("select %s::int[], %s::bigint[], %s::int[]", (numbers, products, quantities)).fetchone()
    assert row == ([0, 1], [2**63 - 1, 1], [1, 2**31 - 1])
