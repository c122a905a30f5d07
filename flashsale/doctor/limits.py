"""Limits that the server's promises need: open files of this machine, connections of PostgreSQL."""

import os
import resource
from collections.abc import Mapping

from psycopg import sql

from api.server.admission import MAX_CONCURRENT_REQUESTS
from api.server.open_files import RESERVED_FILES
from flashsale.database.connection import Connection, fetch_row
from flashsale.doctor.finding import Finding, Findings

CONNECTIONS_PER_WORKER = 19
"""at most, the one for metrics included (api/database/client.py)"""
FILES = MAX_CONCURRENT_REQUESTS + RESERVED_FILES


def open_files() -> Findings:
    """Whether a worker may have as many connections as it serves requests at once.

    The server raises its soft limit to the hard one, which it has in common with this process if it is
    started in the same way.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard == resource.RLIM_INFINITY or hard >= FILES:
        yield Finding("open_files", "ok", f"a worker may open {hard} files")
        return
    yield Finding(
        "open_files", "warning",
        f"a worker may open {hard} files: of {MAX_CONCURRENT_REQUESTS} requests at once,"
        f" {max(0, hard - RESERVED_FILES)} can be connected",
        f"start the server with LimitNOFILE={FILES} in its systemd unit, or after: ulimit -n {FILES}",
    )  # fmt: skip


_LIMITS = """
    select current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int
             - coalesce(current_setting('reserved_connections', true)::int, 0),
           d.datconnlimit, d.datname
      from pg_database d where d.datname = current_database()
"""
# Without operators and the sweep, which need few.
_LIMITED_ROLES = """
    select r.rolname, r.rolconnlimit from pg_roles r
     where r.rolcanlogin and not r.rolsuper and r.rolconnlimit between 0 and %s - 1
       and pg_has_role(r.oid, 'flashsale_api', 'member') and not pg_has_role(r.oid, 'flashsale_ops', 'member')
     order by 1
"""


def connections(conn: Connection, environment: Mapping[str, str] = os.environ) -> Findings:
    """Whether PostgreSQL admits the connections that the workers open."""
    workers = environment.get("WEB_CONCURRENCY", "")
    needed = CONNECTIONS_PER_WORKER * (int(workers) if workers.isdigit() and int(workers) else 1)
    admitted, of_database, name = fetch_row(conn, _LIMITS)
    findings = []
    if admitted < needed:
        most = needed + 20
        findings.append(
            Finding(
                "connections", "warning",
                f"the workers open up to {needed} connections, the server admits {admitted}",
                f"alter system set max_connections = {most}; restart PostgreSQL",
            )
        )  # fmt: skip
    if 0 <= of_database < needed:
        findings.append(
            Finding(
                "connections", "warning",
                f"the workers open up to {needed} connections, database {name} admits {of_database}",
                f"alter database {sql.Identifier(name).as_string(conn)} connection limit -1",
            )
        )  # fmt: skip
    for role, limit in conn.execute(_LIMITED_ROLES, (needed,)).fetchall():
        findings.append(
            Finding(
                "connections", "warning",
                f"the workers open up to {needed} connections, role {role} may open {limit}",
                f"alter role {sql.Identifier(role).as_string(conn)} connection limit {needed}",
            )
        )  # fmt: skip
    yield from findings or [Finding("connections", "ok", f"the workers may open {needed} connections")]
