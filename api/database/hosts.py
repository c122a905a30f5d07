"""The hosts of a connection string, and a connection to that one which is the primary.

libpq tries the hosts one after the other. Behind one that does not answer, such as a primary whose machine
has lost its network, its successor would not be reached in time; so all are tried at once.
"""

import asyncio
from collections.abc import Collection, Sequence
from typing import Any, Self

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.rows import TupleRow


def split_hosts(conninfo: str) -> list[str]:
    """A connection string for each host that `conninfo` names, in order."""
    options: dict[str, Any] = conninfo_to_dict(conninfo)
    lists = {
        name: str(options[name]).split(",") for name in ("host", "hostaddr", "port") if options.get(name)
    }
    count = max((len(values) for name, values in lists.items() if name != "port"), default=1)
    if len(lists.get("port", [])) == 1:  # one port is for all hosts
        del lists["port"]
    if count == 1 or any(len(values) != count for values in lists.values()):
        return [conninfo]  # libpq reports a list that does not match
    # An empty entry is libpq's default.
    return [
        make_conninfo(**options | {name: values[number] or None for name, values in lists.items()})
        for number in range(count)
    ]


def to_primary(conninfo: str) -> dict[str, str]:
    """The parameter that leads to the primary, if `conninfo` names several hosts and has none itself."""
    if len(split_hosts(conninfo)) == 1 or "target_session_attrs" in conninfo_to_dict(conninfo):
        return {}
    return {"target_session_attrs": "primary"}


class PrimaryConnection(psycopg.AsyncConnection[TupleRow]):
    """A connection to the first of several hosts that accepts the session (target_session_attrs)."""

    @classmethod
    async def connect(cls, conninfo: str = "", **kwargs: Any) -> Self:
        """Connect to all hosts at once, and keep one connection.

        :raises psycopg.OperationalError: no host accepts; with the message of each
        """
        hosts = split_hosts(conninfo)
        if len(hosts) == 1:
            return await super().connect(conninfo, **kwargs)
        connect = super().connect
        pending = {asyncio.ensure_future(connect(host, **kwargs)) for host in hosts}
        opened: list[Self] = []
        errors: list[str] = []
        try:
            while pending and not opened:
                done, pending = await asyncio.wait(
                    pending,
                    return_when=asyncio.FIRST_COMPLETED,  # guard: hosts-at-once
                )
                for attempt in done:
                    try:
                        opened.append(attempt.result())
                    except psycopg.OperationalError as error:
                        errors.append(" ".join(str(error).split()))
            if not opened:
                raise psycopg.OperationalError("; ".join(errors))
            return opened[0]
        finally:
            await _end(pending, opened[1:])
            # The traceback of a cancellation keeps this frame, and so the attempts.
            pending.clear()


async def _end(
    pending: Collection["asyncio.Future[Any]"], surplus: Sequence[psycopg.AsyncConnection[Any]]
) -> None:
    """End the attempts that are not needed, and close what they have opened."""
    for attempt in pending:
        attempt.cancel()
    for late in (*surplus, *await asyncio.gather(*pending, return_exceptions=True)):
        if isinstance(late, psycopg.AsyncConnection):
            await late.close()
