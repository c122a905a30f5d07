"""flashsale.release_hold and release_holds: units given back before their time."""

import pytest

from tests.support.sql_calls import (
    available,
    create_order,
    create_product,
    get_hold,
    place_hold,
    place_lapsed_hold,
    refused,
    release_hold,
    release_holds,
    sqlstates,
    value,
)


def test_a_released_hold_gives_its_units_back(db, product):
    hold = place_hold(db, product, 4)
    assert release_hold(db, hold.hold_id) == (hold.hold_id, "released")
    assert available(db, product) == 10
    assert get_hold(db, hold.hold_id).status == "released"


def test_a_second_release_succeeds_and_does_nothing(db, product):
    hold = place_hold(db, product, 4)
    release_hold(db, hold.hold_id)
    assert release_hold(db, hold.hold_id).status == "released"
    assert [outcome.status for outcome in release_holds(db, hold.hold_id, hold.hold_id)] == ["released"] * 2
    assert available(db, product) == 10
    assert value(db, "select count(*) from flashsale_data.events where kind = 'hold_released'") == 1


def test_one_hold_twice_in_one_batch_is_released_once(db, product):
    hold = place_hold(db, product, 4)
    assert sqlstates(release_holds(db, hold.hold_id, hold.hold_id)) == [None, None]
    assert available(db, product) == 10


def test_an_unknown_hold_is_not_found(db):
    for hold_id in (1, -1, 2**53, 2**63 - 1):
        with refused("SA003"):
            release_hold(db, hold_id)


def test_a_release_needs_a_hold(db):
    with refused("SA009"):
        release_hold(db, None)


@pytest.mark.parametrize("swept", [False, True])
def test_a_lapsed_hold_has_expired_swept_or_not(db, product, swept):
    hold = place_lapsed_hold(db, product, 4)
    if swept:
        db.execute("select flashsale.expire_due()")
    with refused("SA004") as refusal:
        release_hold(db, hold.hold_id)
    assert str(hold.hold_id) in refusal.value.diag.message_detail
    assert available(db, product) == 10


def test_an_ordered_hold_is_used(db, product):
    hold = place_hold(db, product, 4)
    create_order(db, hold.hold_id)
    with refused("SA006"):
        release_hold(db, hold.hold_id)
    assert available(db, product) == 6


def test_in_a_batch_each_hold_has_its_own_outcome(db, product):
    other = create_product(db)
    lapsed = place_lapsed_hold(db, other, 5)
    ordered, active, elsewhere = place_hold(db, product), place_hold(db, product, 2), place_hold(db, other, 3)
    create_order(db, ordered.hold_id)
    outcomes = release_holds(
        db, ordered.hold_id, None, active.hold_id, 5, lapsed.hold_id, elsewhere.hold_id, active.hold_id
    )
    assert sqlstates(outcomes) == ["SA006", "SA009", None, "SA003", "SA004", None, None]
    assert [outcome.hold_id for outcome in outcomes if not outcome.sqlstate] == [
        active.hold_id,
        elsewhere.hold_id,
        active.hold_id,
    ]
    assert (available(db, product), available(db, other)) == (9, 10)
