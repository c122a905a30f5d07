"""Another application on the same server: what is done to ours must leave it alone."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg

from flashsale.local.cluster import SUPERUSER, Cluster
from tests.support.sale_steps import one

DATABASE = "accounts"
ROLE = "bookkeeper"

_STATE = {
    "role": "select rolname, rolsuper, rolinherit, rolcreaterole, rolcreatedb, rolcanlogin, rolconnlimit,"
    " rolpassword from pg_authid where rolname = %(role)s",
    "members": "select roleid::regrole::text, member::regrole::text from pg_auth_members"
    " where %(role)s::regrole in (roleid, member)",
    "database": "select datname, datdba::regrole::text, datacl::text, datconnlimit, datallowconn"
    " from pg_database where datname = %(database)s",
    "settings": "select setconfig from pg_db_role_setting s where exists (select from pg_database d"
    " where d.oid = s.setdatabase and d.datname = %(database)s) or setrole = %(role)s::regrole",
    "server": "select name, setting from pg_file_settings where error is null order by seqno",
}


def create(cluster: Cluster) -> None:
    with psycopg.connect(cluster.url(SUPERUSER, "postgres"), autocommit=True) as conn:
        conn.execute(f"create role {ROLE} login password 'secret' connection limit 7")
        conn.execute(f"create database {DATABASE} owner {ROLE}")
        conn.execute(f"alter database {DATABASE} set work_mem = '5MB'")
        if cron := _cron_database(conn):
            with psycopg.connect(cluster.url(SUPERUSER, cron), autocommit=True) as cron_conn:
                cron_conn.execute("create extension if not exists pg_cron")
                cron_conn.execute(
                    "select cron.schedule_in_database('nightly', '0 3 * * *', 'select 1', %s)", (DATABASE,)
                )
    with psycopg.connect(cluster.url(ROLE, DATABASE)) as conn:
        conn.execute("create table entries (entry_id int primary key)")
        conn.execute("insert into entries values (1)")


def state(cluster: Cluster) -> dict[str, Any]:
    """What must not change: the role, the database and its settings, the job, the rows."""
    with psycopg.connect(cluster.url(SUPERUSER, "postgres")) as conn:
        names = {"role": ROLE, "database": DATABASE}
        found: dict[str, Any] = {
            what: conn.execute(query, names).fetchall() for what, query in _STATE.items()
        }
        if cron := _cron_database(conn):
            with psycopg.connect(cluster.url(SUPERUSER, cron)) as cron_conn:
                found["jobs"] = cron_conn.execute(
                    "select jobname, schedule, command, username, active from cron.job where database = %s",
                    (DATABASE,),
                ).fetchall()
                assert len(found["jobs"]) == 1
    with psycopg.connect(cluster.url(ROLE, DATABASE)) as conn:
        found["rows"] = one(conn, "select count(*) from entries")
    return found


@contextmanager
def unharmed(cluster: Cluster, *, in_transaction: bool = True) -> Iterator[None]:
    """A neighbour with an open session: neither it nor the neighbour's state is touched by the block.

    :param in_transaction: the session has an open transaction
    """
    create(cluster)
    with psycopg.connect(cluster.url(ROLE, DATABASE)) as session:
        before = state(cluster)
        if in_transaction:
            session.execute("insert into entries values (2)")
        yield
        if not in_transaction:
            session.execute("insert into entries values (2)")
        assert state(cluster) == before
        session.commit()
        assert one(session, "select count(*) from entries") == 2


def _cron_database(conn: psycopg.Connection) -> str | None:
    return one(conn, "select current_setting('cron.database_name', true)")
