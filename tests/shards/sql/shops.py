"""Products in a slot, and what is sold of them."""

from tests.support.sql_calls import apply_payment, create_order, place_hold, release_hold, value


def create_in(conn, slot, **arguments):
    named = "".join(f", p_{name} => %s" for name in arguments)
    query = f"select flashsale.create_product('Sneaker', 10, 99, p_slot => %s::int{named})"
    return value(conn, query, slot, *arguments.values())


def early_order_id(conn, product):
    return value(conn, "select flashsale.next_order_id(%s)", product)


class Shop:
    """A product of slot 1 with a hold, a released one, a pending and a paid order, and an early webhook."""

    def __init__(self, conn):
        self.product = create_in(conn, 1, max_per_buyer=5, idempotency_key="create")
        self.hold = place_hold(conn, self.product, 2, "hold", "ann").hold_id
        release_hold(conn, place_hold(conn, self.product, 1, None, "bob").hold_id)
        self.pending = create_order(
            conn, place_hold(conn, self.product, 1, None, "ann").hold_id, "order"
        ).order_id
        self.paid = create_order(conn, place_hold(conn, self.product, 1, None, "bob").hold_id).order_id
        apply_payment(conn, "pay", self.paid)
