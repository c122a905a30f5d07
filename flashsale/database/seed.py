"""The role and the product that `flashsale up` creates in a new database."""

from psycopg import sql

from flashsale.database.connection import Connection, fetch_value

APP_ROLE = "flashsale_app"


def create_app_role(conn: Connection) -> None:
    """Create the login role of the HTTP server unless it exists; it may call the public functions only."""
    if not fetch_value(conn, "select exists (select from pg_roles where rolname = %s)", (APP_ROLE,)):
        conn.execute(sql.SQL("create role {} login in role flashsale_api").format(sql.Identifier(APP_ROLE)))


def create_first_product(conn: Connection) -> bool:
    """Create product 1 with 50 units unless there is a product already; returns whether it was created."""
    return (
        conn.execute(
            "select flashsale.create_product('Limited sneaker', 50, 99.00, 'USD')"
            " where not exists (select from flashsale.list_products(0, 1))"
        ).fetchone()
        is not None
    )
