"""What shards are called: in metrics, in the log, in /readyz and on the command line."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from psycopg.conninfo import conninfo_to_dict


def shard_names(urls: Sequence[str]) -> list[str]:
    """A name for each database: its own name, with host and port in front where that is not enough.

    :param urls: libpq connection URIs
    """
    parameters = [conninfo_to_dict(url) for url in urls]
    for form in _FORMS:
        names = [form(each) for each in parameters]
        if len(set(names)) == len(names):
            return names
    return [f"{number}:{name}" for number, name in enumerate(map(_FORMS[-1], parameters), 1)]


def _database(parameters: Mapping[str, Any]) -> str:
    return str(parameters.get("dbname") or parameters.get("service") or parameters.get("user") or "postgres")


def _host(parameters: Mapping[str, Any]) -> str:
    return str(parameters.get("host") or parameters.get("hostaddr") or "localhost")


_FORMS: Sequence[Callable[[Mapping[str, Any]], str]] = (
    _database,
    lambda parameters: f"{_host(parameters)}/{_database(parameters)}",
    lambda parameters: f"{_host(parameters)}:{parameters.get('port') or 5432}/{_database(parameters)}",
)
"""from the shortest on"""
