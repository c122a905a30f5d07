"""flashsale.place_hold and place_holds: units reserved for two minutes."""

from datetime import timedelta

from tests.support.sql_calls import (
    available,
    change_settings,
    create_order,
    create_product,
    expire_due,
    get_hold,
    place_hold,
    place_holds,
    place_lapsed_hold,
    place_short_hold,
    refused,
    release_hold,
    rows,
    sqlstates,
    value,
    wait_until_past,
)


def test_a_hold_reserves_its_units(db, product):
    hold = place_hold(db, product, 3)
    assert (hold.product_id, hold.qty, hold.status, hold.replayed) == (product, 3, "active", False)
    assert available(db, product) == 7


def test_a_hold_lasts_two_minutes_rounded_up_to_a_tenth_of_a_second(db, product):
    before = value(db, "select clock_timestamp()")
    expires_at = place_hold(db, product).expires_at
    after = value(db, "select clock_timestamp()")
    assert before + timedelta(minutes=2) <= expires_at < after + timedelta(minutes=2, milliseconds=100)
    assert expires_at.microsecond % 100_000 == 0


def test_hold_time_is_a_setting_and_holds_keep_the_time_they_were_given(db, product):
    earlier = place_hold(db, product)
    change_settings(db, hold_time="1 hour")
    later = place_hold(db, product)
    assert later.expires_at - earlier.expires_at > timedelta(minutes=57)
    assert get_hold(db, earlier.hold_id).expires_at == earlier.expires_at


def test_hold_ids_are_random_positive_and_below_2_to_the_53(db):
    product = create_product(db, stock=1000)
    ids = [hold.hold_id for hold in place_holds(db, *[(product, 1)] * 1000)]
    assert len(set(ids)) == 1000
    assert all(0 < hold_id < 2**53 for hold_id in ids)
    assert ids != sorted(ids)
    # Each of the 53 bits is a fair coin: 1000 throws leave 400 to 600 with a chance of 1 - 10^-9.
    for bit in range(53):
        assert 400 < sum(hold_id >> bit & 1 for hold_id in ids) < 600, f"bit {bit}"


def test_the_whole_stock_can_be_held_by_one(db, product):
    assert place_hold(db, product, 10).status == "active"
    assert available(db, product) == 0


def test_more_than_there_is_is_insufficient_stock(db, product):
    for qty in (11, 2**31 - 1):
        with refused("SA002"):
            place_hold(db, product, qty)
    assert available(db, product) == 10


def test_a_sold_out_product_is_insufficient_stock(db, product):
    place_hold(db, product, 10)
    with refused("SA002"):
        place_hold(db, product)


def test_an_unknown_product_is_not_found(db):
    with refused("SA001"):
        place_hold(db, 12345)


def test_a_hold_needs_a_product_and_at_least_one_unit(db, product):
    for product_id, qty in ((product, 0), (product, -1), (product, -(2**31)), (product, None), (None, 1)):
        with refused("SA009"):
            place_hold(db, product_id, qty)


def test_a_key_has_1_to_255_characters(db, product):
    for key in ("", "k" * 256):
        with refused("SA009"):
            place_hold(db, product, 1, key)
    assert place_hold(db, product, 1, "k" * 255).replayed is False
    assert place_hold(db, product, 1, "ķ" * 255).replayed is False


def test_refusals_leave_no_trace(db, product):
    events = value(db, "select count(*) from flashsale_data.events")
    for qty in (0, 11):
        assert place_holds(db, (product, qty, "k"))[0].hold_id is None
    assert value(db, "select count(*) from flashsale_data.events") == events
    assert value(db, "select count(*) from flashsale_data.holds") == 0


# --- replays ---


def test_the_same_key_again_is_a_replay_without_effect(db, product):
    first = place_hold(db, product, 2, "k")
    again = place_hold(db, product, 2, "k")
    assert again.replayed
    assert again._replace(replayed=False) == first
    assert available(db, product) == 8


def test_the_same_key_with_another_body_is_refused(db, product):
    other = create_product(db)
    place_hold(db, product, 1, "k")
    for product_id, qty in (
        (product, 2),
        (other, 1),
        (12345, 1),
        (product, 1000),
        (product, 0),
        (product, None),
    ):
        with refused("SA008"):
            place_hold(db, product_id, qty, "k")
    assert (available(db, product), available(db, other)) == (9, 10)


def test_a_key_whose_hold_was_refused_is_free(db, product):
    with refused("SA002"):
        place_hold(db, product, 11, "k")
    assert place_hold(db, product, 1, "k").replayed is False


def test_a_replay_returns_the_hold_as_it_now_stands(db, product):
    holds = {key: place_hold(db, product, 1, key) for key in ("released", "ordered")}
    release_hold(db, holds["released"].hold_id)
    create_order(db, holds["ordered"].hold_id)
    change_settings(db, hold_time="100 ms")
    holds["expired"] = place_hold(db, product, 1, "expired")
    wait_until_past(db, holds["expired"].expires_at)
    for status, hold in holds.items():
        again = place_hold(db, product, 1, status)
        assert (again.hold_id, again.status, again.replayed) == (hold.hold_id, status, True)
        assert again.expires_at == hold.expires_at


def test_a_replay_needs_no_stock(db, product):
    hold = place_hold(db, product, 10, "k")
    assert place_hold(db, product, 10, "k").hold_id == hold.hold_id


def test_one_key_twice_in_one_batch_is_one_hold(db, product):
    first, again, other = place_holds(db, (product, 1, "k"), (product, 1, "k"), (product, 2, "k"))
    assert (first.sqlstate, first.replayed) == (None, False)
    assert (again.sqlstate, again.replayed) == (None, True)
    assert (again.hold_id, again.status, again.expires_at) == (first.hold_id, "active", first.expires_at)
    assert (other.sqlstate, other.hold_id) == ("SA008", None)
    assert available(db, product) == 9


def test_a_refused_request_does_not_use_up_its_key_for_the_rest_of_the_batch(db, product):
    outcomes = place_holds(
        db, (product, 11, "k"), (product, 11, "k"), (product, 1, "k"), (product, 1, "k"), (product, 2, "k")
    )
    assert sqlstates(outcomes) == ["SA002", "SA002", None, None, "SA008"]
    assert [outcome.replayed for outcome in outcomes[2:4]] == [False, True]
    assert outcomes[2].hold_id == outcomes[3].hold_id
    assert available(db, product) == 9


def test_keys_of_holds_and_of_orders_are_apart(db, product):
    hold = place_hold(db, product, 1, "k")
    assert create_order(db, hold.hold_id, "k").replayed is False


# --- time ---


def test_a_lapsed_hold_returns_its_units_without_a_sweep(db, product):
    place_lapsed_hold(db, product, 10)
    assert available(db, product) == 10
    assert place_hold(db, product, 10).status == "active"
    assert value(db, "select count(*) from flashsale_data.holds where status = 'expired'") == 0


def test_units_are_back_at_the_very_instant_of_the_lapse(db, product):
    hold = place_short_hold(db, product, 4, "1 second")
    samples = []
    while not samples or samples[-1].before <= hold.expires_at:
        samples += rows(
            db,
            "select clock_timestamp() as before, (flashsale.get_product(%s)).available_stock,"
            " (flashsale.get_hold(%s)).status, clock_timestamp() as after",
            product,
            hold.hold_id,
        )
    for sample in samples:
        if sample.after < hold.expires_at:
            assert (sample.available_stock, sample.status) == (6, "active")
        elif sample.before >= hold.expires_at:
            assert (sample.available_stock, sample.status) == (10, "expired")
    assert {sample.available_stock for sample in samples} == {6, 10}


def test_units_are_there_for_the_buyer_of_that_instant(db, product):
    lapsing = place_short_hold(db, product, 10)
    before, outcome = None, None
    while not outcome or outcome.sqlstate:
        assert before is None or before < lapsing.expires_at, "refused after the lapse"
        before = value(db, "select clock_timestamp()")
        (outcome,) = place_holds(db, (product, 10))
    placed_at = value(db, "select placed_at from flashsale_data.holds where hold_id = %s", outcome.hold_id)
    assert placed_at >= lapsing.expires_at


def test_units_that_were_taken_after_a_lapse_are_not_given_back_twice(db, product):
    lapsed = place_lapsed_hold(db, product, 10)
    place_hold(db, product, 8)
    assert available(db, product) == 2
    assert expire_due(db) == 1
    assert available(db, product) == 2
    with refused("SA004"):
        release_hold(db, lapsed.hold_id)
    assert available(db, product) == 2
