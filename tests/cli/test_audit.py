"""`flashsale audit`."""

import json

from tests.support.sale_steps import create_product, place_hold


def test_it_succeeds_if_every_invariant_holds(flashsale, db):
    place_hold(db, create_product(db))
    result = flashsale("audit")
    assert (result.exit_code, result.stdout) == (0, "every invariant holds\n")
    assert json.loads(flashsale("audit", "--json").stdout) == []


def test_it_prints_violated_invariants_and_exits_with_1(flashsale, db):
    create_product(db)
    db.execute("update flashsale_data.stock set held = 1")
    result = flashsale("audit")
    assert result.exit_code == 1
    assert "held_counter" in result.stdout
    found = flashsale("audit", "--json")
    assert found.exit_code == 1
    assert "product 1 counts 1 held, its holds add up to 0" in [
        row["detail"] for row in json.loads(found.stdout)
    ]
