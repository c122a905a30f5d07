"""`flashsale doctor`: the order of text, which an upgrade of the operating system changes."""

from collections.abc import Iterator

import psycopg
import pytest
from pytest_postgresql.janitor import DatabaseJanitor

from flashsale.doctor import collation
from flashsale.local.cluster import PORT, SUPERUSER, Cluster
from tests.doctor.findings import only, problems

LOCALES = {
    "a language": "locale_provider icu icu_locale 'en' locale 'C'",
    "bytes": "locale 'C.UTF-8'",
}


@pytest.fixture(params=LOCALES.values(), ids=LOCALES)
def ordered(request: pytest.FixtureRequest, cluster: Cluster) -> Iterator[psycopg.Connection]:
    """A database whose name must be quoted, with an index on text."""
    name = "flashsale-order"
    with DatabaseJanitor(user=SUPERUSER, host=str(cluster.socket_directory), port=PORT, dbname=name):
        with psycopg.connect(cluster.url(SUPERUSER, "postgres"), autocommit=True) as conn:
            conn.execute(f'drop database "{name}"')
            conn.execute(f'create database "{name}" encoding utf8 {request.param} template template0')
        with psycopg.connect(cluster.url(SUPERUSER, name), autocommit=True) as conn:
            conn.execute("create table cards (code text primary key)")
            conn.execute("insert into cards values ('s'), ('z'), ('t')")
            yield conn


def test_another_version_of_the_library_is_a_warning_and_its_remedy_works(ordered):
    assert problems(collation.collation, ordered) == []
    ordered.execute("update pg_database set datcollversion = '0' where datname = current_database()")
    finding = only(collation.collation, ordered)
    assert (finding.status, "flashsale-order had version 0 and has" in finding.detail) == ("warning", True)
    for statement in finding.remedy.split("; "):
        ordered.execute(statement)
    assert problems(collation.collation, ordered) == []
