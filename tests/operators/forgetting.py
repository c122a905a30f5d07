"""What tests of forget_tests() call, and wait for."""

from tests.support.sale_steps import one
from tests.support.sql_calls import rows
from tests.support.waiting import wait_until


def forget(conn, *product_ids):
    """The rows of forget_tests() for these products, or for all."""
    return rows(conn, "select * from flashsale.forget_tests(%s::bigint[])", list(product_ids) or None)


def forgotten(conn, *product_ids):
    """Which test products are forgotten."""
    return {found.product_id: found.forgotten for found in forget(conn, *product_ids)}


def wait_for_lapses(db, product):
    """Return when the short holds and orders of the product have lapsed."""
    query = (
        "select count(*) from flashsale_data.lapses where product_id = %s"
        " and lapses_at between clock_timestamp() and clock_timestamp() + interval '10 seconds'"
    )
    wait_until(lambda: one(db, query, product) == 0, "they have lapsed")
