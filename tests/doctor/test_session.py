"""`flashsale doctor`: the session that the HTTP server would have."""

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from api.database.session import TRANSACTION_POOLER
from flashsale.doctor import session
from flashsale.local.cluster import DATABASE, SUPERUSER
from tests.doctor.findings import only, problems
from tests.support import servers
from tests.support.poolers import pooler
from tests.support.shops import pool_settings, running_shop


@pytest.fixture
def url(database_url: str, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("FLASHSALE_DATABASE_URL", database_url)
    return database_url


def test_a_direct_session_is_ok(db, url):
    assert only(session.session, db).detail == (
        "PostgreSQL is reached directly: one backend a session; lock_timeout and statement_timeout are set"
    )


@pytest.mark.parametrize(
    ("options", "detail"),
    [
        (
            "-c lock_timeout=0",
            "the URL sets lock_timeout to 0: a locked row keeps requests until they time out",
        ),
        (
            "-c lock_timeout=5s",
            "the URL sets lock_timeout to 5000 ms: a locked row keeps requests for up to that long",
        ),
        (
            "--statement-timeout=2s",
            "the URL sets statement_timeout to 2000 ms: a locked row keeps requests for up to that long",
        ),
    ],
)
def test_a_time_limit_in_the_url_is_a_warning_and_its_remedy_works(db, url, monkeypatch, options, detail):
    monkeypatch.setenv("FLASHSALE_DATABASE_URL", make_conninfo(url, options=options))
    assert problems(session.session, db) == [("warning", detail)]
    assert "from the options in FLASHSALE_DATABASE_URL" in only(session.session, db).remedy
    monkeypatch.setenv("FLASHSALE_DATABASE_URL", url)
    assert problems(session.session, db) == []


@pytest.mark.slow
@servers.needs("pgbouncer")
def test_a_pooler_is_named_and_fails_in_transaction_mode_and_its_remedy_works(monkeypatch):
    with running_shop() as cluster, psycopg.connect(cluster.url(SUPERUSER, DATABASE)) as conn:
        with pooler(cluster, "pgbouncer", pool_settings("transaction")) as pool:
            monkeypatch.setenv("FLASHSALE_DATABASE_URL", pool.url(SUPERUSER))
            finding = only(session.session, conn)
            assert (finding.status, finding.detail) == ("failed", TRANSACTION_POOLER)
            assert finding.remedy == "set pool_mode = session for this database in the pooler, and restart it"
        with pooler(cluster, "pgbouncer", pool_settings("session")) as pool:
            monkeypatch.setenv("FLASHSALE_DATABASE_URL", pool.url(SUPERUSER))
            finding = only(session.session, conn)
            assert (finding.status, "a pooler is in between" in finding.detail) == ("ok", True)
