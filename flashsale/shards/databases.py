"""The databases of FLASHSALE_DATABASE_URLS, and what each of them owns."""

import os
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import psycopg
from psycopg.conninfo import conninfo_to_dict

from api.settings import InvalidSettings, parse_database_urls
from api.shards.names import shard_names
from api.shards.slots import slot_ranges
from flashsale.database.connection import connect, describe_error, fetch_row
from flashsale.errors import UserError


class Database(NamedTuple):
    """A shard.

    :param url: with its password
    """

    name: str
    url: str


class Owned(NamedTuple):
    """What a shard says of itself.

    :param slots: into which the shop is divided
    """

    slots: int
    owned: list[int]

    def has(self, id_: int) -> bool:
        return id_ % self.slots in self.owned


def databases(environment: Mapping[str, str] | None = None) -> list[Database]:
    """All shards; empty if there is one database.

    :raises UserError: FLASHSALE_DATABASE_URLS is not valid
    """
    try:
        urls = parse_database_urls(os.environ if environment is None else environment)
    except InvalidSettings as error:
        raise UserError(str(error)) from error
    return [Database(name, url) for name, url in zip(shard_names(urls), urls, strict=True)]


def named(name: str, among: Sequence[Database]) -> Database:
    """:raises UserError: no shard has this name"""
    for database in among:
        if database.name == name:
            return database
    raise UserError(f"there is no shard {name!r}; there are {', '.join(each.name for each in among)}")


def address(url: str) -> str:
    """Where a URL leads, without the password."""
    parameters = conninfo_to_dict(url)
    host = parameters.get("host") or parameters.get("hostaddr") or "localhost"
    user = f"{parameters['user']}@" if parameters.get("user") else ""
    port = f":{parameters['port']}" if parameters.get("port") else ""
    return f"{user}{host}{port}/{parameters.get('dbname') or ''}"


def read_owned(command: str, url: str) -> Owned:
    """:raises psycopg.Error:"""
    with connect(command, url) as conn:
        return Owned._make(fetch_row(conn, "select slots, owned from flashsale.get_shard()"))


def owners_of(command: str, ids: Sequence[int], among: Sequence[Database]) -> dict[int, Database]:
    """The shard of each id.

    :raises UserError: an id has none, as far as is known
    """
    owned: dict[str, Owned] = {}
    errors: list[str] = []
    for database in among:
        try:
            owned[database.name] = read_owned(command, database.url)
        except psycopg.Error as error:
            errors.append(f"{database.name}: {describe_error(error)}")
    found: dict[int, Database] = {}
    for id_ in ids:
        owners = [
            each
            for each in among
            if each.name in owned and id_ % owned[each.name].slots in owned[each.name].owned
        ]
        if len(owners) == 1:
            found[id_] = owners[0]
            continue
        said = [
            f"{len(owners)} shards own the slot of {id_}" if owners else f"no shard owns the slot of {id_}"
        ]
        raise UserError("; ".join(said + errors))
    return found


def describe_choice(among: Sequence[Database]) -> str:
    """The names to choose from, with the slots of each."""
    parts = []
    for database in among:
        try:
            owned = read_owned("shard list", database.url).owned
            parts.append(f"{database.name} (slots {slot_ranges(owned) or 'none'})")
        except psycopg.Error:
            parts.append(f"{database.name} (not reachable)")
    return ", ".join(parts)
