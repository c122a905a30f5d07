"""The hosts of a connection string, and a connection to that one which is the primary.

libpq tries the hosts one after the other. Behind one that does not answer, such as a primary whose machine
has lost its network, its successor would not be reached in time; so all are tried at once.
"""

import asyncio
from collections.abc import Iterable, Sequence
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
        attempts = [
            asyncio.ensure_future(super(PrimaryConnection, cls).connect(host, **kwargs)) for host in hosts
        ]
        chosen: Self | None = None
        try:
            for attempt in asyncio.as_completed(attempts):  # guard: hosts-at-once
                try:
                    chosen = await attempt
                except psycopg.OperationalError:
                    continue
                return chosen
            raise psycopg.OperationalError("; ".join(_messages(attempts)))
        finally:
            await _end(attempts, chosen)


def _messages(attempts: Iterable["asyncio.Future[Any]"]) -> Iterable[str]:
    for attempt in attempts:
        if error := attempt.exception():
            yield " ".join(str(error).split())


async def _end(
    attempts: Sequence["asyncio.Future[Any]"], chosen: psycopg.AsyncConnection[Any] | None
) -> None:
    """End the attempts that are not needed, and close what they have opened."""
    for attempt in attempts:
        attempt.cancel()
    for opened in await asyncio.gather(*attempts, return_exceptions=True):
        if isinstance(opened, psycopg.AsyncConnection) and opened is not chosen:
            await opened.close()
