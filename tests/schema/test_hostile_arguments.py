"""Hostile arguments to every function: a call succeeds or is refused with a sentence; audit() is empty."""

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.hostile_arguments import (
    FUNCTIONS,
    HOSTILE,
    SANE,
    SHAPES,
    Function,
    check_error,
    check_row,
    literal,
    of_catalog,
)
from tests.support.sale_steps import audit, create_product, order, pay, place_hold


@pytest.fixture
def shop(db):
    """Rows that some arguments refer to; returns the ids of the holds "@held" and "@used"."""
    product = create_product(db, stock=50)
    pay(db, order(db, product), key="pay")
    order(db, product)
    pay(db, 7, key="stored")
    return {"@held": str(place_hold(db, product)), "@used": str(place_hold(db, product, 1, "x"))}


@pytest.fixture
def function(db, request):
    return of_catalog(db, request.param)


def one_of(kind):
    values = HOSTILE[kind] + (["@held", "@used"] if kind == "bigint" else [])
    return st.none() | st.sampled_from(values)


def arguments(types):
    """A list of arguments. Arrays mostly have one length, since the call is refused otherwise."""
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
    """Call the function; an unexpected error or row fails the test."""
    for stand_in, hold in shop.items():
        values = [value and value.replace(stand_in, hold) for value in values]
    try:
        cursor = db.execute(function.statement(["%s"] * len(values)), values)
    except psycopg.Error as error:
        diag = error.diag
        check_error(
            error.sqlstate, diag.message_primary, diag.message_detail, diag.context, str(error)[:2000]
        )
        return
    columns = [column.name for column in cursor.description or ()]
    if "sqlstate" in columns:
        for row in cursor.fetchall():
            check_row(row[columns.index("sqlstate")], row[columns.index("detail")])


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
    @given(arguments(function.types))
    def try_them(values):
        call(db, shop, function, values)

    try_them()
    assert audit(db) == []


@pytest.mark.parametrize("function", FUNCTIONS, indirect=True)
def test_any_value_of_one_argument_is_served_or_refused(db, shop, function):
    types = function.types
    sane = [
        literal([SANE[name]]) if kind.endswith("[]") else SANE[name]
        for name, kind in zip(function.names, types, strict=True)
    ]
    call(db, shop, function, sane)
    for position, kind in enumerate(types):
        for value in [None, *HOSTILE[kind.removesuffix("[]")], *(SHAPES if kind.endswith("[]") else [])]:
            is_shape = kind.endswith("[]") and value in SHAPES
            hostile = literal([value]) if kind.endswith("[]") and not is_shape else value
            call(db, shop, function, [*sane[:position], hostile, *sane[position + 1 :]])
    assert audit(db) == []


def test_control_an_error_inside_a_function_is_found(db, shop):
    with db.transaction(force_rollback=True):
        db.execute(
            "create function flashsale.careless(p_hold_id bigint) returns int language plpgsql as"
            " 'begin return 1 / (p_hold_id - 1); end'"
        )
        with pytest.raises(AssertionError, match="22012"), db.transaction():
            call(db, shop, Function("careless", False, ["p_hold_id"], ["bigint"]), ["1"])
