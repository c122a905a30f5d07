"""The PostgreSQL server: version, encoding, clock, durability, settings."""

import time

from flashsale.database.connection import Connection, fetch_row, fetch_value
from flashsale.database.migrations import OLDEST_SERVER
from flashsale.doctor.finding import Finding, Findings

CLOCK_WARNING_SECONDS = 1.0
CLOCK_LIMIT_SECONDS = 30.0
"""seconds between the clocks; a webhook's timestamp may be off by 300, a hold lasts 120"""
RECOMMENDED_LOCKS = 256
"""max_locks_per_transaction; each keyed request of a batch takes one lock"""


def database(conn: Connection) -> Findings:
    yield Finding("database", "ok", f"{conn.info.dbname} as role {conn.info.user}")


def server(conn: Connection) -> Findings:
    version, standby, encoding = fetch_row(
        conn,
        "select current_setting('server_version'), pg_is_in_recovery(), current_setting('server_encoding')",
    )
    if conn.info.server_version < OLDEST_SERVER:
        oldest = OLDEST_SERVER // 10000
        yield Finding("server", "failed", f"PostgreSQL {version}", f"upgrade to PostgreSQL {oldest} or newer")
    elif standby:
        yield Finding("server", "failed", "a read-only standby", "connect to the primary")
    elif encoding != "UTF8":
        yield Finding("server", "failed", f"the database's encoding is {encoding}", "recreate it with UTF8")
    else:
        yield Finding("server", "ok", f"PostgreSQL {version}")


def clock(conn: Connection) -> Findings:
    before = time.time()
    server_time = float(fetch_value(conn, "select extract(epoch from clock_timestamp())"))
    after = time.time()
    offset = server_time - (before + after) / 2
    # Half of the round-trip time is the uncertainty of the offset.
    least = max(0.0, abs(offset) - (after - before) / 2)
    detail = (
        f"the server's clock is {abs(offset):.1f} s {'ahead of' if offset > 0 else 'behind'} this machine's"
    )
    remedy = "synchronize both by NTP (timedatectl, chronyc tracking)"
    if least >= CLOCK_LIMIT_SECONDS:
        yield Finding("clock", "failed", detail, remedy)
    elif least >= CLOCK_WARNING_SECONDS:
        yield Finding("clock", "warning", detail, remedy)
    else:
        yield Finding("clock", "ok", "the clocks of the server and of this machine agree")


# The server's value, which this session has unless something nearer sets it, and what is set for this
# database and for roles that use flashsale. Settings of other roles are not ours.
_SETTINGS = """
    select * from (
      select p.name, p.setting, case p.source when 'command line' then p.source else 'file' end,
             p.context in ('user', 'superuser')
        from pg_settings p
       where p.name = any (%(names)s)
         and p.source not in ('database', 'user', 'database user', 'client', 'session')
      union all
      select split_part(given, '=', 1), substr(given, strpos(given, '=') + 1),
             concat_ws(' in ', 'role ' || quote_ident(r.rolname), 'database ' || quote_ident(d.datname)), true
        from pg_db_role_setting s
        left join pg_roles r on r.oid = s.setrole
        left join pg_database d on d.oid = s.setdatabase
        cross join unnest(s.setconfig) given
       where (s.setrole <> 0 or s.setdatabase <> 0)
         and (s.setdatabase = 0 or d.datname = current_database())
         and (s.setrole = 0 or exists (select from pg_roles api where api.rolname = 'flashsale_api'
                                          and pg_has_role(r.oid, api.oid, 'member')))
         and split_part(given, '=', 1) = any (%(names)s)
    ) as found (name, setting, place, is_settable)
     order by name <> 'default_transaction_read_only'
"""
_OFF = {"off", "false", "no", "0"}


def durability(conn: Connection) -> Findings:
    """Whether an acknowledged request survives a power failure."""
    names = ["fsync", "full_page_writes", "synchronous_commit"]
    failed = []
    for name, value, where, is_settable in conn.execute(_SETTINGS, {"names": names}):
        if value.lower() in _OFF:
            remedy = _fix(conn, name, "on", where, is_settable)
            failed.append(Finding("durability", "failed", f"{name} is off for {_place(where)}", remedy))
    yield from failed or [Finding("durability", "ok", "acknowledged commits survive a crash")]


def settings(conn: Connection) -> Findings:
    findings: list[Finding] = []
    names = [
        "default_transaction_isolation",
        "default_transaction_read_only",
        "max_locks_per_transaction",
        "session_replication_role",
    ]
    with conn.transaction(force_rollback=True):
        conn.execute("reset default_transaction_isolation")  # pinned in this session
        found = conn.execute(_SETTINGS, {"names": names}).fetchall()
    for name, value, where, is_settable in found:
        detail = f"{name} is {value} for {_place(where)}"
        if name == "default_transaction_isolation" and value != "read committed":
            remedy = _fix(conn, name, "'read committed'", where, is_settable)
            # Commands and the HTTP server have their own.
            detail += ": read_events() refuses callers that do not set their own"
            findings.append(Finding("settings", "warning", detail, remedy))
        elif name == "session_replication_role" and value not in ("origin", "local"):
            remedy = _fix(conn, name, "origin", where, is_settable)
            findings.append(Finding("settings", "failed", f"{detail}: constraints are not checked", remedy))
        elif name == "default_transaction_read_only" and value.lower() not in _OFF:
            remedy = _fix(conn, name, "off", where, is_settable)
            findings.append(Finding("settings", "failed", detail, remedy))
        elif name == "max_locks_per_transaction" and int(value) < RECOMMENDED_LOCKS:
            remedy = _fix(conn, name, str(RECOMMENDED_LOCKS), where, is_settable)
            findings.append(Finding("settings", "warning", detail, remedy))
    yield from findings or [
        Finding("settings", "ok", "isolation, read-only mode and lock limit are as recommended")
    ]


def _place(where: str) -> str:
    """In words, where a setting of _SETTINGS comes from."""
    return "the server" if where in ("file", "command line") else where


def _fix(conn: Connection, name: str, value: str, where: str, is_settable: bool) -> str:
    """The statements that set it for us, and for others only if it is one for the whole server.

    :param is_settable: for a database or a role
    """
    if is_settable:
        if _place(where) == "the server":
            where = fetch_value(conn, "select 'database ' || quote_ident(current_database())")
        statement = f"alter {where} set {name} = {value}"
        # The session that runs it may be read-only, too.
        return (
            f"begin read write; {statement}; commit" if name == "default_transaction_read_only" else statement
        )
    if where == "command line":  # it takes precedence over files
        return f"restart PostgreSQL with {name} = {value} on its command line"
    activate = "restart PostgreSQL" if name == "max_locks_per_transaction" else "select pg_reload_conf()"
    return f"alter system set {name} = {value}; {activate}"
