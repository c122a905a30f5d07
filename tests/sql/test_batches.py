"""What every set-based function has in common: arrays in, one outcome row for each request out."""

from tests.support.sql_calls import (
    available,
    create_orders,
    create_product,
    place_hold,
    place_holds,
    place_lapsed_hold,
    refused,
    release_holds,
    rows,
    sqlstates,
    value,
)

# Each function with one column of arguments after another.
CALLS = {
    "place_holds": ["int", "bigint", "int", "text"],
    "release_holds": ["int", "bigint"],
    "create_orders": ["int", "bigint", "text"],
    "apply_payments": ["int", "text", "bigint", "text", "jsonb"],
    "get_products": ["int", "bigint"],
    "get_holds": ["int", "bigint"],
    "get_orders": ["int", "bigint", "bigint"],
}
TWO = {"int": "{1,2}", "bigint": "{1,2}", "text": "{a,b}", "jsonb": '{"{}","{}"}'}
MISFITS = {
    "shorter": {"int": "{1}", "bigint": "{1}", "text": "{a}", "jsonb": '{"{}"}'},
    "longer": {"int": "{1,2,3}", "bigint": "{1,2,3}", "text": "{a,b,c}", "jsonb": '{"{}","{}","{}"}'},
    "empty": dict.fromkeys(TWO, "{}"),
    "null": dict.fromkeys(TWO),
    "two-dimensional": {
        "int": "{{1},{2}}",
        "bigint": "{{1},{2}}",
        "text": "{{a},{b}}",
        "jsonb": '{{"{}"},{"{}"}}',
    },
    "from 0": {
        "int": "[0:1]={1,2}",
        "bigint": "[0:1]={1,2}",
        "text": "[0:1]={a,b}",
        "jsonb": '[0:1]={"{}","{}"}',
    },
    "from 2": {
        "int": "[2:3]={1,2}",
        "bigint": "[2:3]={1,2}",
        "text": "[2:3]={a,b}",
        "jsonb": '[2:3]={"{}","{}"}',
    },
}


def call(db, function, arrays):
    marks = ", ".join(f"%s::{kind}[]" for kind in CALLS[function])
    return rows(db, f"select * from flashsale.{function}({marks})", *arrays)


def test_arrays_that_do_not_line_up_are_refused_as_a_whole(db, product):
    for function, kinds in CALLS.items():
        for misfit in MISFITS.values():
            for at, kind in enumerate(kinds):
                arrays = [TWO[kind] for kind in kinds]
                arrays[at] = misfit[kind]
                with refused("SA009"):
                    call(db, function, arrays)
        for name in ("two-dimensional", "from 0", "from 2"):
            with refused("SA009"):
                call(db, function, [MISFITS[name][kind] for kind in kinds])
        assert len(call(db, function, [TWO[kind] for kind in kinds])) == 2


def test_a_call_without_requests_has_no_outcomes(db):
    for function, kinds in CALLS.items():
        assert call(db, function, ["{}" for _ in kinds]) == []
        assert call(db, function, [None for _ in kinds]) == []


def test_a_call_carries_at_most_1000_requests(db, product):
    def array(kind, size):
        return [{"int": 1, "bigint": i, "text": f"k{i}", "jsonb": "{}"}[kind] for i in range(size)]

    for function, kinds in CALLS.items():
        with refused("SA009"):
            call(db, function, [array(kind, 1001) for kind in kinds])
        assert len(call(db, function, [array(kind, 1000) for kind in kinds])) == 1000


def test_requests_of_nulls_are_refused_one_by_one(db):
    for function, kinds in CALLS.items():
        outcomes = call(db, function, ["{null,null}" for _ in kinds])
        assert [outcome.request_no for outcome in outcomes] == [None, None]
        assert all(sqlstates(outcomes)), function


def test_request_numbers_are_the_callers_own(db):
    for function, kinds in CALLS.items():
        for numbers in ([7, 7], [-(2**31), 2**31 - 1], [5, None]):
            outcomes = call(db, function, [numbers, *[TWO[kind] for kind in kinds[1:]]])
            assert [outcome.request_no for outcome in outcomes] == numbers


# --- array order ---


def test_the_last_units_go_to_the_first_requests(db):
    product = create_product(db, stock=3)
    outcomes = place_holds(db, *[(product, 1)] * 5)
    assert sqlstates(outcomes) == [None, None, None, "SA002", "SA002"]


def test_a_big_refused_request_leaves_the_units_to_smaller_later_ones(db):
    product = create_product(db, stock=5)
    outcomes = place_holds(db, *[(product, qty) for qty in (3, 4, 1, 2, 1, 1)])
    assert sqlstates(outcomes) == [None, "SA002", None, "SA002", None, "SA002"]
    assert available(db, product) == 0


def test_units_that_lapsed_before_the_batch_are_sold_in_it(db, product):
    place_lapsed_hold(db, product, 7)
    assert sqlstates(place_holds(db, (product, 9), (product, 2), (product, 1))) == [None, "SA002", None]


def test_one_refusal_never_touches_another_outcome(db, product):
    other, sold_out = create_product(db), create_product(db, stock=0)
    place_hold(db, product, 1, "used")
    outcomes = place_holds(
        db,
        (product, 1),
        (12345, 1),
        (product, 0),
        (None, 1),
        (sold_out, 1),
        (other, 11),
        (other, 10),
        (product, 2, "used"),
        (product, 1, ""),
        (product, 8),
        (product, 2**31 - 1),
        (product, None),
    )
    assert sqlstates(outcomes) == [
        *(None, "SA001", "SA009", "SA009", "SA002", "SA002"),
        *(None, "SA008", "SA009", None, "SA002", "SA009"),
    ]
    assert all((outcome.hold_id is None) == (outcome.sqlstate is not None) for outcome in outcomes)
    assert all((outcome.detail is None) == (outcome.sqlstate is None) for outcome in outcomes)
    assert (available(db, product), available(db, other)) == (0, 0)


def test_a_thousand_requests_in_one_call(db):
    products = [create_product(db, stock=90) for _ in range(10)]
    outcomes = place_holds(db, *[(products[i % 10], 1, f"k{i}") for i in range(1000)])
    assert sqlstates(outcomes) == [None] * 900 + ["SA002"] * 100
    orders = create_orders(db, *[(outcome.hold_id,) for outcome in outcomes[:450]])
    assert sqlstates(orders) == [None] * 450
    released = release_holds(db, *[outcome.hold_id for outcome in outcomes[:900]])
    assert sqlstates(released) == ["SA006"] * 450 + [None] * 450
    assert [available(db, product) for product in products] == [45] * 10


def test_a_batch_is_one_transaction(db, product):
    with db.transaction(force_rollback=True):
        place_holds(db, (product, 1), (product, 1))
    assert available(db, product) == 10
    assert value(db, "select count(*) from flashsale_data.holds") == 0
