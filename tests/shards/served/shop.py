"""A shop on two databases of one cluster: four slots, of which `a` owns 0 and 1, and `b` 2 and 3."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
import psycopg
from pytest_postgresql.janitor import DatabaseJanitor

from flashsale.database.seed import APP_ROLE
from flashsale.local.cluster import SUPERUSER, Cluster
from tests.support.http import running_server
from tests.support.sale_steps import audit
from tests.support.sql_calls import rows, value

NAMES = {"a": "flashsale_a", "b": "flashsale_b"}
"""of the databases, and so of the shards"""
SLOTS = 4
OWNED = {"a": [0, 1], "b": [2, 3]}


class Shop:
    """`a` and `b` are superuser's connections."""

    def __init__(self, cluster: Cluster, stack: ExitStack) -> None:
        self.cluster = cluster
        self._stack = stack
        self.a, self.b = (stack.enter_context(self.connect(shard)) for shard in NAMES)
        for shard, owned in OWNED.items():
            self[shard].execute("select flashsale.set_shard(%s, %s)", (SLOTS, owned))

    def __getitem__(self, shard: str) -> psycopg.Connection:
        return {"a": self.a, "b": self.b}[shard]

    def connect(self, shard: str, user: str = SUPERUSER) -> psycopg.Connection:
        return psycopg.connect(self.url(shard, user), autocommit=True)

    def url(self, shard: str, user: str = SUPERUSER) -> str:
        return self.cluster.url(user, NAMES[shard])

    def urls(self, user: str = SUPERUSER, **others: str) -> str:
        """FLASHSALE_DATABASE_URLS; `others` are URLs to use instead, by shard."""
        return " ".join(others.get(shard) or self.url(shard, user) for shard in NAMES)

    def product(self, slot: int, stock: int = 50, **terms: object) -> int:
        """A product in this slot, on its shard."""
        named = "".join(f", p_{name} => %s" for name in terms)
        query = f"select flashsale.create_product('Shoe', %s::int, 99, 'USD', p_slot => %s{named})"
        return value(self[self.owner(slot)], query, stock, slot, *terms.values())

    def owner(self, slot: int) -> str:
        """The shard of a slot, or of an id."""
        (owner,) = self.owners(slot)
        return owner

    def owners(self, slot: int) -> list[str]:
        return [
            shard
            for shard in NAMES
            if slot % SLOTS in value(self[shard], "select owned from flashsale.get_shard()")
        ]

    @contextmanager
    def server(self, log: Path, *, urls: str | None = None, **environment: str) -> Iterator[httpx.Client]:
        """A client of an HTTP server of this shop."""
        given = {"FLASHSALE_DATABASE_URLS": urls or self.urls(APP_ROLE), **environment}
        with running_server("", log, **given) as url, httpx.Client(base_url=url, timeout=10) as client:
            yield client

    def check(self) -> None:
        """The books of both shards add up."""
        assert {shard: audit(self[shard]) for shard in NAMES} == {"a": [], "b": []}

    def count(self, table: str) -> dict[str, int]:
        return {shard: value(self[shard], f"select count(*) from flashsale_data.{table}") for shard in NAMES}

    def ids(self, query: str) -> list[Any]:
        """The first column, of both shards."""
        return [found[0] for shard in NAMES for found in rows(self[shard], query)]


@contextmanager
def new_shop(cluster: Cluster, template: Any) -> Iterator[Shop]:
    with ExitStack() as stack:
        for dbname in NAMES.values():
            stack.enter_context(
                DatabaseJanitor(
                    user=template.user, host=template.host, port=template.port, dbname=dbname,
                    template_dbname=template.template_dbname,
                )
            )  # fmt: skip
        yield Shop(cluster, stack)
