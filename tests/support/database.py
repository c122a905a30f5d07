"""One database for many tests, emptied before each: 20 ms where a clone of the template takes 500.

A test that changes functions or tables does so in a transaction it rolls back, or asks for a clone
(conftest.py).
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import psycopg
import pytest
from psycopg.types.json import Jsonb
from pytest_postgresql.executors import NoopExecutor
from pytest_postgresql.janitor import DatabaseJanitor

from flashsale.local.cluster import Cluster, find_binary, has_pg_cron

# The string is evaluated when the test is about to run.
needs_pg_cron = pytest.mark.skipif(
    f"{not has_pg_cron(find_binary('postgres'))} or config.getoption('postgresql') is not None",
    reason="pg_cron is not installed",
)

OURS = "relnamespace = 'flashsale_data'::regnamespace"
TABLES = f"select relname from pg_class where {OURS} and relkind = 'r'"
RESTART_SEQUENCES = (
    "select setval(s.seqrelid, s.seqstart, false)"
    f" from pg_sequence s join pg_class c on c.oid = s.seqrelid where {OURS}"
)


def emptied_database(dbname: str, scope: str = "session") -> tuple[Callable, Callable]:
    """Two fixtures: the clone, and the connection that stands in for pytest-postgresql's `postgresql`.

    :param scope: the clone's
    """

    @pytest.fixture(scope=scope)
    def shared(template: NoopExecutor, cluster: Cluster) -> Iterator[tuple[str, dict[str, list]]]:
        user = template.user
        with DatabaseJanitor(
            user=user,
            host=template.host,
            port=template.port,
            dbname=dbname,
            template_dbname=template.template_dbname,
        ):
            url = cluster.url(user, dbname)
            with psycopg.connect(url) as conn:
                seeded = seeded_rows(conn)
            yield url, seeded

    @pytest.fixture
    def postgresql(shared: tuple[str, dict[str, list]]) -> Iterator[psycopg.Connection]:
        url, seeded = shared
        with psycopg.connect(url) as conn:
            empty(conn, seeded)
            conn.commit()
            yield conn

    return shared, postgresql


def routines(db: psycopg.Connection) -> list[str]:
    """Every routine of the two schemas with its arguments."""
    found = db.execute(
        "select oid::regprocedure::text from pg_proc"
        " where pronamespace in ('flashsale'::regnamespace, 'flashsale_data'::regnamespace) order by 1"
    )
    return [name for (name,) in found]


@contextmanager
def unreachable(db: psycopg.Connection) -> Iterator[None]:
    """The API's connections to the database of `db` are cut, and it accepts no new ones."""
    maintenance = psycopg.conninfo.make_conninfo(db.info.dsn, dbname="postgres")
    with psycopg.connect(maintenance, autocommit=True) as outside:
        outside.execute(f'alter database "{db.info.dbname}" allow_connections false')
        outside.execute(
            "select pg_terminate_backend(pid, 5000) from pg_stat_activity"
            " where datname = %s and application_name like 'flashsale %%'",
            (db.info.dbname,),
        )
        yield
        outside.execute(f'alter database "{db.info.dbname}" allow_connections true')


@contextmanager
def session_of_new_role(
    db: psycopg.Connection, connect: Callable[..., psycopg.Connection], role: str, member_of: str = ""
) -> Iterator[psycopg.Connection]:
    """A session of a role that is a member of `member_of` and has no other privilege; both end together."""
    db.execute(f"create role {role} login {member_of and f'in role {member_of}'}")
    conn = connect(role)
    try:
        yield conn
    finally:
        conn.close()
        db.execute(f"drop owned by {role}")
        db.execute(f"drop role {role}")


def seeded_rows(conn: psycopg.Connection) -> dict[str, list]:
    """What the migrations have left in each table."""
    return {
        name: conn.execute(f"select coalesce(jsonb_agg(t), '[]') from flashsale_data.{name} t").fetchone()[0]
        for (name,) in conn.execute(TABLES).fetchall()
    }


def empty(conn: psycopg.Connection, seeded: dict[str, list]) -> None:
    """Bring every table back to what the migrations left in it, and every sequence to its start."""
    deletes = [f"delete from flashsale_data.{name}" for name in seeded]
    # Without foreign keys, in any order; in one round trip.
    conn.execute("; ".join(["set local session_replication_role = replica", *deletes]))
    for name, rows in seeded.items():
        if rows:
            conn.execute(
                f"insert into flashsale_data.{name}"
                f" select * from jsonb_populate_recordset(null::flashsale_data.{name}, %s)",
                (Jsonb(rows),),
            )
    # Not by `alter sequence`, which writes a new file for each.
    conn.execute(RESTART_SEQUENCES)
