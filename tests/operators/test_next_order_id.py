"""next_order_id(): the id of the next order, for a stored webhook."""

from tests.support.sale_steps import create_product, one, order


def test_it_is_the_id_the_next_order_gets(db):
    product = create_product(db)
    for _ in range(3):
        expected = one(db, "select flashsale.next_order_id()")
        assert order(db, product) == expected


def test_reading_the_next_id_does_not_use_it_up(db):
    assert {one(db, "select flashsale.next_order_id()") for _ in range(3)} == {1}
