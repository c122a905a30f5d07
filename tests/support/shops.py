"""A shop on a server of its own, for tests of what is between a server and its clients."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import psycopg

from flashsale.database.migrations import migrate
from flashsale.local.cluster import DATABASE, SUPERUSER, Cluster
from tests.support.clusters import running_cluster

ROLE = "checkout"
"""of the HTTP server"""


@contextmanager
def running_shop(settings: Mapping[str, str] | None = None) -> Iterator[Cluster]:
    """A cluster whose database flashsale has product 1 with 50 units, and a role for the server."""
    with running_cluster(settings, with_pg_cron=False) as cluster:
        with psycopg.connect(cluster.url(SUPERUSER, "postgres"), autocommit=True) as conn:
            conn.execute(f"create database {DATABASE}")
        url = cluster.url(SUPERUSER, DATABASE)
        migrate(url, schedule=False, say=lambda _: None)
        with psycopg.connect(url, autocommit=True) as conn:
            conn.execute(f"create role {ROLE} login in role flashsale_api")
            conn.execute("select flashsale.create_product('Shoe', 50, 99, 'USD')")
        yield cluster


def pool_settings(mode: str, size: int = 20) -> str:
    """Of PgBouncer, as few as it starts with."""
    return (
        "[databases]\n* = host=127.0.0.1 port=5432\n[pgbouncer]\n"
        f"pool_mode = {mode}\ndefault_pool_size = {size}\n"
    )
