"""The sessions of the server in the database, and a lock that they wait for."""

import psycopg


def lock_product(conn: psycopg.Connection, product_id: int) -> None:
    conn.execute("select from flashsale_data.stock where product_id = %s for update", (product_id,))


def backends(db: psycopg.Connection, name: str = "flashsale %") -> list[int]:
    query = "select pid from pg_stat_activity where datname = current_database() and application_name like %s"
    return [pid for (pid,) in db.execute(query, (name,))]
