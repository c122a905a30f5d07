"""Whatever is passed to whatever function: it is done, or refused in words, and the books stay right.

The functions and their argument types come from the catalog, so a new function is tried without being named.
"""

import json

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.operators.shop import audit, create_product, order, pay, place_hold
from tests.support import ROOT

FUNCTIONS = sorted(
    path.stem for folder in ("public", "operators") for path in (ROOT / "sql" / folder).glob("*.sql")
)

INTEGERS = ["0", "1", "-1", "2", "3", "7", "1000", "1001", "32768", "2147483647", "-2147483648"]
TEXTS = [
    "", " ", "\t\n", "x", "success", "failed", "cancelled", "SUCCESS", "USD", "JPY", "usd", "XXXX", "pay",
    "early", "x" * 200, "x" * 201, "x" * 255, "x" * 256, "x" * 100_000, "🦶" * 255, "é", "e\u0301",
    "\u202eevil", "\ufeff", "\u00a0", "\U0010ffff", "\x01\x7f", "'; drop schema flashsale_data cascade; --",
    "%s %", "{1,2}", "$1", "\\", "null",
]  # fmt: skip
PAYLOADS = [
    "null", "1", "true", '"x"', "[]", "{}", "[{}]", '{"": 1}',
    '{"amount": 1}', '{"amount": null}', '{"amount": ""}', '{"amount": "NaN"}', '{"amount": "1e5"}',
    '{"amount": "Infinity"}', '{"amount": "-1"}', '{"amount": "99.00"}', '{"amount": "99.00\\n"}',
    '{"amount": "999999999999999.999999"}', '{"amount": "9999999999999999"}', '{"amount": ["99.00"]}',
    '{"amount": "٩٩"}', '{"amount": "99.00", "currency": "USD"}', '{"amount": "0", "currency": "EUR"}',
    '{"currency": "usd"}', '{"currency": null}', '{"currency": {}}', '{"currency": "US\\u0130"}',
    '{"status": "success", "order_id": 1, "idempotency_key": "other"}',
    '{"deep": ' + "[" * 1000 + "]" * 1000 + "}",
    '{"number": 1e1000, "small": 1e-1000}',
    json.dumps({"long": "x" * 200_000}), json.dumps({f"member {n}": n for n in range(1000)}),
]  # fmt: skip
HOSTILE = {
    "integer": [*INTEGERS, "2147483648", "1.5", "", "NaN", "0x10", "ten"],
    "bigint": [
        *INTEGERS, "4294967296", "9007199254740991", "9007199254740992", "9223372036854775807",
        "-9223372036854775808", "9223372036854775808", "1e3", "",
    ],
    "numeric": [
        "0", "-0", "1", "99.00", "0.005", "0.01", "-0.01", "999999999999.99", "999999999999.999",
        "1000000000000", "1e100000", "1e-16383", "NaN", "Infinity", "-Infinity", "", "1,5", "9" * 400,
    ],
    "text": TEXTS,
    "jsonb": [*PAYLOADS, "", "{", '{"a": NaN}', '"\\u0000"'],
    "interval": [
        "0", "1 microsecond", "-1 microsecond", "99 milliseconds", "1 second", "2 minutes", "1 day",
        "30 days", "1 month", "1 year", "100 years", "101 years", "-12 months 360 days",
        "12 months -360 days", "1 day -25 hours",
        "178000000 years", "-178000000 years", "178000000 years -65000000000 days", "2147483647 days",
        "9223372036854 seconds", "-9223372036854 seconds", "P1Y", "", "soon",
    ],
}  # fmt: skip
# What an array may look like besides one element a request.
SHAPES = [None, "{}", "{NULL}", "{NULL,NULL}", "{{NULL},{NULL}}", "[0:1]={NULL,NULL}", "[2:2]={NULL}"]
SHAPES += ["{" + ",".join(["NULL"] * count) + "}" for count in (1000, 1001, 5000)]

TYPES = """
    select p.prokind = 'p', array(select format_type(t, null) from unnest(p.proargtypes) t)
    from pg_proc p
    where p.pronamespace = 'flashsale'::regnamespace and p.proname = %s
"""


@pytest.fixture
def shop(db):
    """What exists, so that some arguments get further than a first look; hold ids stand in for "@held"."""
    product = create_product(db, stock=50)
    pay(db, order(db, product), key="pay")
    order(db, product)
    pay(db, 7, key="early")
    return {"@held": str(place_hold(db, product)), "@used": str(place_hold(db, product, 1, "x"))}


@pytest.fixture
def function(db, request):
    is_procedure, types = db.execute(TYPES, (request.param,)).fetchone()
    return request.param, is_procedure, types


def one_of(kind):
    values = HOSTILE[kind] + (["@held", "@used"] if kind == "bigint" else [])
    return st.none() | st.sampled_from(values)


def literal(values):
    """An array in PostgreSQL's notation."""
    quoted = (
        "NULL" if v is None else '"' + v.replace("\\", "\\\\").replace('"', '\\"') + '"' for v in values
    )
    return "{" + ",".join(quoted) + "}"


def arguments(types):
    """One list of arguments; arrays mostly line up, or nothing but their not doing so would be tried."""
    arrays = [kind.endswith("[]") for kind in types]

    def of_size(size):
        lists = [
            st.lists(one_of(kind.removesuffix("[]")), min_size=size, max_size=size).map(literal)
            if is_array
            else one_of(kind)
            for kind, is_array in zip(types, arrays, strict=True)
        ]
        return st.tuples(*lists)

    lined_up = st.integers(0, 5).flatmap(of_size)
    if not any(arrays):
        return of_size(1)
    odd = st.tuples(*(st.sampled_from(SHAPES) for _ in types))
    same = st.sampled_from(SHAPES).map(lambda shape: (shape,) * len(types))
    return st.one_of(lined_up, lined_up, lined_up, odd, same)


def call(db, shop, function, values):
    """Call it; what must not happen fails the test."""
    name, is_procedure, types = function
    for stand_in, hold in shop.items():
        values = [value and value.replace(stand_in, hold) for value in values]
    casts = ", ".join(f"%s::{kind}" for kind in types)
    try:
        cursor = db.execute(
            f"{'call' if is_procedure else 'select * from'} flashsale.{name}({casts})", values
        )
    except psycopg.Error as error:
        # A value that is none of its type never gets as far as the function.
        at_the_call = error.sqlstate[:2] in ("22", "42") and "function" not in (error.diag.context or "")
        assert error.sqlstate.startswith("SA") or at_the_call, (error.sqlstate, str(error)[:2000])
        if not at_the_call:
            assert error.diag.message_primary
            assert error.diag.message_detail
        return
    columns = [column.name for column in cursor.description or ()]
    if "sqlstate" in columns and name != "refusals":
        for row in cursor.fetchall():
            refusal, detail = row[columns.index("sqlstate")], row[columns.index("detail")]
            assert refusal is None or (refusal.startswith("SA") and detail), row


@pytest.mark.parametrize("function", FUNCTIONS, indirect=True)
def test_any_combination_of_arguments_is_served_or_refused(db, shop, function):
    @settings(
        max_examples=30,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=[
            HealthCheck.too_slow,
            HealthCheck.data_too_large,
            HealthCheck.large_base_example,
        ],
    )
    @given(arguments(function[2]))
    def try_them(values):
        call(db, shop, function, values)

    try_them()
    assert audit(db) == []


# Values by which each argument on its own is sane, so that the hostile one gets as deep as it can.
SANE = {
    "p_product_id": "1", "p_qty": "1", "p_idempotency_key": "a key", "p_hold_id": "@held", "p_order_id": "1",
    "p_status": "success", "p_payload": "{}", "p_after": "0", "p_limit": "10", "p_name": "Sneaker",
    "p_stock": "5", "p_price": "99.00", "p_currency": "USD", "p_delta": "1", "p_older_than": "1 day",
    "p_hold_time": "1 minute", "p_payment_window": "1 minute", "p_inbox_limit": "100",
    "p_inbox_keep": "1 hour",
    "p_request_nos": "1", "p_product_ids": "1", "p_qtys": "1", "p_idempotency_keys": "another key",
    "p_hold_ids": "@held", "p_order_ids": "1", "p_statuses": "success", "p_payloads": "{}",
}  # fmt: skip


@pytest.mark.parametrize("function", FUNCTIONS, indirect=True)
def test_each_argument_alone_may_be_anything(db, shop, function):
    name, _, types = function
    names = db.execute(
        "select coalesce(p.proargnames[1:p.pronargs], '{}') from pg_proc p"
        " where p.pronamespace = 'flashsale'::regnamespace and p.proname = %s",
        (name,),
    ).fetchone()[0]
    sane = [
        literal([SANE[n]]) if kind.endswith("[]") else SANE[n] for n, kind in zip(names, types, strict=True)
    ]
    call(db, shop, function, sane)
    for position, kind in enumerate(types):
        for value in [None, *HOSTILE[kind.removesuffix("[]")], *(SHAPES if kind.endswith("[]") else [])]:
            is_shape = kind.endswith("[]") and value in SHAPES
            hostile = literal([value]) if kind.endswith("[]") and not is_shape else value
            call(db, shop, function, [*sane[:position], hostile, *sane[position + 1 :]])
    assert audit(db) == []


def test_control_an_error_inside_a_function_is_noticed(db, shop):
    with db.transaction(force_rollback=True):
        db.execute(
            "create function flashsale.careless(p_hold_id bigint) returns int language plpgsql as"
            " 'begin return 1 / (p_hold_id - 1); end'"
        )
        with pytest.raises(AssertionError, match="22012"), db.transaction():
            call(db, shop, ("careless", False, ["bigint"]), ["1"])
