"""What `flashsale up` puts into a database for the first visitor."""

import psycopg
from psycopg import sql

APP_ROLE = "flashsale_app"


def create_app_role(conn: psycopg.Connection) -> None:
    """Create the role the HTTP server logs in as, which may call the public functions and nothing else."""
    if not conn.execute("select exists (select from pg_roles where rolname = %s)", (APP_ROLE,)).fetchone()[0]:
        conn.execute(sql.SQL("create role {} login in role flashsale_api").format(sql.Identifier(APP_ROLE)))


def create_first_product(conn: psycopg.Connection) -> bool:
    """Create product 1 with 50 in stock unless there is a product already; true if it was created."""
    return (
        conn.execute(
            "select flashsale.create_product('Limited sneaker', 50, 99.00, 'USD')"
            " where not exists (select from flashsale.list_products(0, 1))"
        ).fetchone()
        is not None
    )
