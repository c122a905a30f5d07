"""extend_hold(), extend_holds(): a hold's end moves once for each end that its caller has seen."""

from datetime import timedelta

import pytest

from tests.support.sql_calls import (
    LOCKED,
    available,
    change_settings,
    change_terms,
    create_order,
    expire_due,
    extend_hold,
    extend_holds,
    get_hold,
    pause_sale,
    place_hold,
    place_lapsed_hold,
    refused,
    release_hold,
    rows,
    sqlstates,
    value,
    wait_until_past,
)

MINUTE = timedelta(minutes=1)


def test_an_extension_adds_a_minute(db, product):
    hold = place_hold(db, product, 3)
    extended = extend_hold(db, hold.hold_id, hold.expires_at)
    assert (extended.expires_at, extended.replayed) == (hold.expires_at + MINUTE, False)
    assert get_hold(db, hold.hold_id).expires_at == extended.expires_at
    assert rows(db, "select lapses_at, held from flashsale_data.lapses where held > 0") == [
        (extended.expires_at, 3)
    ]
    event = "select product_id, hold_id, available_delta, (data ->> 'expires_at')::timestamptz as expires_at"
    assert rows(db, event + " from flashsale_data.events where kind = 'hold_extended'") == [
        (product, hold.hold_id, 0, extended.expires_at)
    ]


def test_an_extension_that_is_repeated_has_no_second_effect(db, product):
    hold = place_hold(db, product)
    extended = extend_hold(db, hold.hold_id, hold.expires_at)
    again = extend_hold(db, hold.hold_id, hold.expires_at)
    assert (again.expires_at, again.replayed) == (extended.expires_at, True)
    assert value(db, "select count(*) from flashsale_data.events where kind = 'hold_extended'") == 1


def test_a_hold_is_extended_as_often_as_the_settings_say(db, product):
    hold = place_hold(db, product)
    seen = extend_hold(db, hold.hold_id, hold.expires_at).expires_at
    with refused("SA018") as refusal:
        extend_hold(db, hold.hold_id, seen)
    assert str(seen)[:19] in refusal.value.diag.message_detail
    change_settings(db, max_extensions=2, extension_time="5 minutes")
    assert extend_hold(db, hold.hold_id, seen).expires_at == seen + 5 * MINUTE
    change_settings(db, max_extensions=0)
    with refused("SA018"):
        other = place_hold(db, product)
        extend_hold(db, other.hold_id, other.expires_at)


def test_an_end_that_the_hold_has_not_is_refused_with_its_end(db, product):
    hold = place_hold(db, product)
    (refusal,) = extend_holds(db, (hold.hold_id, hold.expires_at + MINUTE))
    assert (refusal.sqlstate, refusal.expires_at) == ("SA018", hold.expires_at)


def test_the_units_stay_held_past_the_first_end(db, product):
    change_settings(db, hold_time="200 ms")
    hold = place_hold(db, product, 10)
    extend_hold(db, hold.hold_id, hold.expires_at)
    wait_until_past(db, hold.expires_at)
    assert (available(db, product), expire_due(db)) == (0, 0)
    with refused("SA002"):
        place_hold(db, product)
    assert create_order(db, hold.hold_id).status == "pending_payment"


@pytest.mark.parametrize("swept", [False, True])
def test_a_hold_that_has_expired_is_not_extended(db, product, swept):
    hold = place_lapsed_hold(db, product)
    if swept:
        expire_due(db)
    for seen in (hold.expires_at, hold.expires_at - MINUTE, hold.expires_at + MINUTE):
        with refused("SA004"):
            extend_hold(db, hold.hold_id, seen)


def test_a_hold_that_is_no_longer_one_is_not_extended(db, product):
    released, ordered = place_hold(db, product), place_hold(db, product)
    release_hold(db, released.hold_id)
    create_order(db, ordered.hold_id)
    with refused("SA005"):
        extend_hold(db, released.hold_id, released.expires_at)
    with refused("SA006"):
        extend_hold(db, ordered.hold_id, ordered.expires_at)
    with refused("SA003"):
        extend_hold(db, 1, ordered.expires_at)
    for arguments in ((None, ordered.expires_at), (place_hold(db, product).hold_id, None)):
        with refused("SA009"):
            extend_hold(db, *arguments)


def test_what_was_held_in_time_may_be_extended_whatever_the_terms_are_by_now(db, product):
    hold = place_hold(db, product)
    change_terms(db, product, ends_at="2000-01-01 00:00Z")
    pause_sale(db, product)
    assert extend_hold(db, hold.hold_id, hold.expires_at).expires_at == hold.expires_at + MINUTE


def test_a_batch_is_extended_in_array_order(db, product):
    one, two = place_hold(db, product), place_hold(db, product)
    batch = extend_holds(
        db, (one.hold_id, one.expires_at), (1, one.expires_at), (one.hold_id, one.expires_at),
        (two.hold_id, None), (two.hold_id, two.expires_at), (one.hold_id, one.expires_at + MINUTE),
    )  # fmt: skip
    assert sqlstates(batch) == [None, "SA003", None, "SA009", None, "SA018"]
    assert [row.replayed for row in batch] == [False, False, True, False, False, False]
    assert value(db, "select count(*) from flashsale_data.events where kind = 'hold_extended'") == 2


def test_extensions_of_a_locked_hold_or_product(db, product, first):
    """A batch leaves what is locked alone; a single request would wait."""
    one, two = place_hold(db, product), place_hold(db, product)
    first.execute("select from flashsale_data.holds where hold_id = %s for no key update", (one.hold_id,))
    assert sqlstates(extend_holds(db, *[(h.hold_id, h.expires_at) for h in (one, two)])) == [LOCKED, None]


@pytest.mark.slow
def test_an_extension_that_has_waited_past_the_end_is_too_late(db, product, first, second, blocked):
    change_settings(db, hold_time="1 second")
    hold = place_hold(db, product)
    place_hold(first, product)
    extension = blocked(extend_hold, second, hold.hold_id, hold.expires_at)
    wait_until_past(db, hold.expires_at)
    first.commit()
    assert extension.result() == "SA004"
