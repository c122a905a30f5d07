"""How commands reach the database, and how they put its objections into a sentence."""

import os
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from flashsale.errors import Refusal
from flashsale.local.cluster import SUPERUSER, Cluster
from flashsale.local.supervisor import DATABASE, Settings

CONNECT_TIMEOUT = 10
"""seconds, unless the URL says otherwise"""

Answer = TypeVar("Answer")


def settings() -> Settings:
    """What the environment says."""
    return Settings.from_environment(os.environ)


def admin_url() -> str:
    """FLASHSALE_DATABASE_URL, or else the superuser's URL of the running private cluster.

    :raises Refusal: neither is there
    """
    found = settings()
    if found.database_url:
        try:
            conninfo_to_dict(found.database_url)
        except psycopg.Error:
            # Without the reason, which would quote the password.
            raise Refusal("FLASHSALE_DATABASE_URL is no libpq connection string or URI") from None
        return found.database_url
    cluster = Cluster(found.data_directory)
    if not cluster.is_running():
        raise Refusal("set FLASHSALE_DATABASE_URL, or start the private cluster with: make up")
    return cluster.url(SUPERUSER, DATABASE)


def connect(purpose: str, url: str | None = None) -> psycopg.Connection[Any]:
    """An autocommit connection to `url`, or else admin_url().

    :param purpose: the command, for whoever looks at pg_stat_activity
    """
    given: dict[str, Any] = {"connect_timeout": CONNECT_TIMEOUT, **conninfo_to_dict(url or admin_url())}
    given |= {"application_name": f"flashsale {purpose}", "client_encoding": "UTF8"}
    return psycopg.connect(make_conninfo(**given), autocommit=True)


def repeatedly(
    ask: Callable[[psycopg.Connection[Any]], Answer], purpose: str
) -> Iterator[Answer | psycopg.OperationalError]:
    """What `ask` makes of the database, again and again, over a new connection where the old one broke.

    A database that is away is an answer, too: its error. Only at first must it be there.
    """
    conn = connect(purpose)
    try:
        while True:
            try:
                if conn.closed:
                    conn = connect(purpose)
                yield ask(conn)
            except psycopg.OperationalError as error:
                yield error
    finally:
        conn.close()


def explain(error: psycopg.Error) -> str:
    """What PostgreSQL objected to, and what to do about it where that is known, as one sentence."""
    said = error.diag.message_primary
    detail = f": {error.diag.message_detail}" if error.diag.message_detail else ""
    state = error.sqlstate or ""
    if state.startswith("SA"):
        return f"{said}{detail}"
    if state == "42501":
        return f"{said}: use a role that has flashsale_ops, such as the one that migrates"
    if state in ("3F000", "42883", "42P01", "42703"):
        return f"{said}: the database has another version of flashsale, or none; run: flashsale migrate"
    if said is None:
        return f"cannot reach the database: {' '.join(str(error).split())}"
    return f"{said}{detail}"
