"""Array literals: PostgreSQL reads the same values that were written."""

import psycopg

from api.database.functions import CREATE_ORDERS, EXTEND_HOLDS, PLACE_HOLDS

KEYS = [
    "plain", None, "NULL", "null", "", "{}", 'quo"te', "back\\slash", "a,b", " spaced ", "'", "ключ", "%s",
    "\n",
]  # fmt: skip


def test_texts_in_an_array_literal(db: psycopg.Connection) -> None:
    _, _, literal = CREATE_ORDERS.parameters([(1, key) for key in KEYS])
    assert db.execute("select %s::text[]", (literal,)).fetchone() == (KEYS,)


def test_integers_in_an_array_literal(db: psycopg.Connection) -> None:
    requests = [(2**63 - 1, 1, None, None), (1, 2**31 - 1, None, None)]
    numbers, products, quantities, _, _ = PLACE_HOLDS.parameters(requests)
    row = db.execute("select %s::int[], %s::bigint[], %s::int[]", (numbers, products, quantities)).fetchone()
    assert row == ([0, 1], [2**63 - 1, 1], [1, 2**31 - 1])


def test_buyers_are_null_as_a_whole_unless_a_request_has_one(db: psycopg.Connection) -> None:
    *_, buyers = PLACE_HOLDS.parameters([(1, 1, None, None), (1, 1, None, None)])
    assert buyers is None
    *_, buyers = PLACE_HOLDS.parameters([(1, 1, None, None), (1, 1, None, "ada"), (1, 1, None, "NULL")])
    assert db.execute("select %s::text[]", (buyers,)).fetchone() == ([None, "ada", "NULL"],)


def test_times_in_an_array_literal(db: psycopg.Connection) -> None:
    *_, times = EXTEND_HOLDS.parameters([(1, "2025-01-12T10:45:20Z"), (2, "2025-01-12T10:45:20.300Z")])
    assert db.execute(
        "select %s::timestamptz[] = array['2025-01-12 10:45:20+00', '2025-01-12 10:45:20.3+00']"
        "::timestamptz[]",
        (times,),
    ).fetchone() == (True,)
