"""The examples of docs/shards.md, on a cluster of their own."""

from pathlib import Path

import psycopg
import pytest

from flashsale.local.cluster import SUPERUSER
from tests.docs.documents import Reader
from tests.support import ROOT
from tests.support.clusters import running_cluster
from tests.support.database import needs_pg_cron

pytestmark = [pytest.mark.slow, needs_pg_cron]


def test_a_reader_divides_a_shop(tmp_path: Path) -> None:
    names = ("east", "west", "north")
    with running_cluster() as cluster:
        with psycopg.connect(cluster.url(SUPERUSER, "postgres"), autocommit=True) as conn:
            for name in names:
                conn.execute(f"create database {name}")
        urls = {name.upper(): cluster.url(SUPERUSER, name) for name in names}
        with Reader(tmp_path, environment=urls) as reader:
            reader.type_all(ROOT / "docs/shards.md")
