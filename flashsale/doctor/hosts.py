"""The hosts that the URL names: which one is the primary, and whether the others can replace it."""

from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any, NamedTuple

import psycopg
from psycopg import errors
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from api.database.hosts import split_hosts
from flashsale.database.connection import Connection, admin_url, connect, fetch_row, fetch_value
from flashsale.doctor.finding import Finding, Findings

CONNECT_TIMEOUT_SECONDS = 3
LAG_WARNING_BYTES = 16 * 1024 * 1024
"""a segment of WAL"""

# What a role may not see is null: pg_monitor (pg_read_all_stats) sees who replicates as what.
_IDENTIFY = """
    select pg_is_in_recovery(), (select system_identifier from pg_control_system()),
           case when pg_is_in_recovery() then pg_last_wal_replay_lsn() else pg_current_wal_lsn() end::text,
           exists (select from pg_stat_wal_receiver where pid is not null),
           (select conninfo from pg_stat_wal_receiver)
"""
_HAS_PG_CRON = "select scheduler <> 'not_installed' from flashsale.readiness()"
_SYNC_STATES = """
    select application_name, sync_state from pg_stat_replication
     where sync_state is not null and state = 'streaming'
"""


class _Host(NamedTuple):
    """A host of the URL.

    :param error: why it does not answer; "" if it does
    :param lsn: where its WAL ends, or what it has replayed
    :param receives: it is a standby that follows a primary
    :param name: of the standby, in synchronous_standby_names; "" if this role may not see it
    """

    address: str
    error: str = ""
    is_standby: bool = True
    system: int = 0
    lsn: str = "0/0"
    receives: bool = False
    name: str = ""
    has_pg_cron: bool = True


def hosts(conn: Connection) -> Findings:
    """The role of each host, if the URL names several."""
    found = _identify_all()
    primaries = [host for host in found if not host.error and not host.is_standby]
    names = _addresses(primaries)
    if len(primaries) > 1:  # guard: doctor-one-primary
        yield Finding(
            "hosts", "failed", f"{names} accept writes: the same units are sold twice",
            "stop all but the one that Patroni shows as leader, and have it rejoin as a standby",
        )  # fmt: skip
        return
    for primary in primaries:
        yield _primary(conn, primary)
    sync_states = dict(conn.execute(_SYNC_STATES).fetchall())
    for host in found:
        if host.error:
            yield _silent(host)
        elif host.is_standby:
            yield _standby(conn, host, primaries, sync_states)


def hosts_without_primary() -> Findings:
    """The role of each host, if the URL names several and none of them is the primary."""
    for host in _identify_all():
        if host.error:
            yield _silent(host)
        elif host.is_standby:
            yield Finding(
                "hosts", "failed", f"{host.address} is a standby, and no host is the primary",
                "patronictl list shows whether a failover is under way, or why there is none",
            )  # fmt: skip


def _silent(host: _Host) -> Finding:
    return Finding(
        "hosts", "warning", f"{host.address} does not answer: {host.error}",
        "start it as a standby, or remove it from FLASHSALE_DATABASE_URL",
    )  # fmt: skip


def _identify_all() -> list[_Host]:
    """All hosts, if there are several."""
    urls = split_hosts(admin_url())
    if len(urls) == 1:
        return []
    with ThreadPoolExecutor(len(urls)) as pool:
        return list(pool.map(_identify, urls))


def _addresses(found: list[_Host]) -> str:
    return " and ".join(host.address for host in found)


def _identify(url: str) -> _Host:
    options = conninfo_to_dict(url)
    address = f"{options.get('host') or options.get('hostaddr')}:{options.get('port') or 5432}"
    limits: dict[str, Any] = {"target_session_attrs": "any", "connect_timeout": CONNECT_TIMEOUT_SECONDS}
    try:
        with connect("doctor", make_conninfo(url, **limits)) as conn:
            is_standby, system, lsn, receives, conninfo = fetch_row(conn, _IDENTIFY)
            has_pg_cron = True
            with suppress(errors.InsufficientPrivilege, errors.UndefinedFunction, errors.InvalidSchemaName):
                has_pg_cron = fetch_value(conn, _HAS_PG_CRON)
    except psycopg.OperationalError as error:
        return _Host(address, " ".join(str(error).split()))
    receiver = conninfo_to_dict(conninfo or "")
    name = str(receiver.get("application_name") or receiver.get("fallback_application_name") or "")
    return _Host(address, "", is_standby, system, lsn, receives, name, has_pg_cron)


def _primary(conn: Connection, host: _Host) -> Finding:
    (names,) = fetch_row(conn, "select current_setting('synchronous_standby_names')")
    if not names:  # guard: doctor-synchronous
        return Finding(
            "hosts", "warning",
            f"{host.address} is the primary, and commits wait for no standby: a failover may lose the last",
            "set synchronous_standby_names, or synchronous_mode in Patroni",
        )  # fmt: skip
    return Finding("hosts", "ok", f"{host.address} is the primary; commits wait for {names}")


def _standby(conn: Connection, host: _Host, primaries: list[_Host], sync_states: dict[str, str]) -> Finding:
    (lag, system) = fetch_row(
        conn,
        "select greatest(pg_current_wal_lsn() - %s::pg_lsn, 0)::bigint,"
        " (select system_identifier from pg_control_system())",
        (host.lsn,),
    )
    state = sync_states.get(host.name, "")
    problem, remedy = "", "patronictl list shows its state; patronictl reinit copies it anew"
    if host.system != system:
        problem = "of another database, which was not copied from this primary"
    elif not host.receives:  # guard: doctor-standby-receives
        problem = "that receives nothing: it does not follow the primary"
    elif lag > LAG_WARNING_BYTES:
        problem, remedy = f"that is {lag} bytes behind", "look at its disk and its network"
    elif state == "async":
        problem = "that no commit waits for: a failover to it may lose the last ones"
        remedy = "name it in synchronous_standby_names, or set synchronous_mode in Patroni"
    elif not host.has_pg_cron and any(primary.has_pg_cron for primary in primaries):
        problem = "without pg_cron, which the primary has: after a failover nothing is swept"
        remedy = "add pg_cron to shared_preload_libraries there, and restart it"
    if problem:
        return Finding("hosts", "warning", f"{host.address} is a standby {problem}", remedy)
    counts = {"sync": ", synchronous", "quorum": ", synchronous (one of several)"}.get(state, "")
    return Finding("hosts", "ok", f"{host.address} is a standby{counts}, {lag} bytes behind")
