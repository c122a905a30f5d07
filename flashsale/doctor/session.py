"""A session as the HTTP server has it: what is between the server and PostgreSQL."""

import asyncio

from psycopg.conninfo import make_conninfo

from api.database.client import SLOW_LOCK_TIMEOUT_MS
from api.database.connection import STATEMENT_TIMEOUT_MS, connection_string, session_settings
from api.database.hosts import PrimaryConnection
from api.database.session import TRANSACTION_POOLER, SessionRefused, establish
from flashsale.database.connection import Connection, admin_url
from flashsale.doctor.finding import Finding, Findings

_LIMITS = {"lock_timeout": SLOW_LOCK_TIMEOUT_MS, "statement_timeout": STATEMENT_TIMEOUT_MS}
"""milliseconds, at most"""


def session(conn: Connection) -> Findings:
    """Whether each session has a backend of its own, with the time limits of the server.

    Examined in a session of its own, which is opened and prepared by the code of the server.
    """
    try:
        is_pooled, limits = asyncio.run(_examine(admin_url(), conn.info.dbname))
    except SessionRefused as error:
        remedy = "connect to the primary"
        if str(error) == TRANSACTION_POOLER:
            remedy = "set pool_mode = session for this database in the pooler, and restart it"
        yield Finding("session", "failed", str(error), remedy)
        return
    findings = [
        Finding(
            "session", "warning",
            f"the URL sets {name} to {limits[name]} ms: a locked row keeps requests for up to that long"
            if limits[name]
            else f"the URL sets {name} to 0: a locked row keeps requests until they time out",
            f"remove {name} from the options in FLASHSALE_DATABASE_URL",
        )
        for name, most in _LIMITS.items()
        if not 0 < limits[name] <= most
    ]  # fmt: skip
    between = "a pooler is in between, which keeps" if is_pooled else "PostgreSQL is reached directly:"
    yield from findings or [
        Finding(
            "session", "ok", f"{between} one backend a session; lock_timeout and statement_timeout are set"
        )
    ]


async def _examine(url: str, dbname: str) -> tuple[bool, dict[str, int]]:
    """Whether there is a pooler in between, and the time limits in milliseconds."""
    conninfo = connection_string(make_conninfo(url, dbname=dbname), "flashsale doctor")
    settings = session_settings(url, lock_timeout_ms=SLOW_LOCK_TIMEOUT_MS)
    async with await PrimaryConnection.connect(conninfo, autocommit=True) as connection:
        await establish(connection, conninfo, settings, writes=False)
        (pid,) = await (await connection.execute("select pg_backend_pid()")).fetchone() or (0,)
        cursor = await connection.execute(
            "select name, setting::int from pg_settings where name = any (%s)", (list(_LIMITS),)
        )
        return pid != connection.pgconn.backend_pid, dict(await cursor.fetchall())
