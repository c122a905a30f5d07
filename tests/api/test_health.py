"""GET /healthz and /readyz."""

import httpx
import psycopg

from tests.support.database import needs_pg_cron


def test_ready_means_the_database_has_our_schema(client: httpx.Client, db: psycopg.Connection) -> None:
    assert client.get("/healthz").json() == {"status": "alive"}
    ready = client.get("/readyz")
    assert ready.status_code == 200, ready.text
    assert ready.json()["schema"] == "current"
    assert ready.json()["scheduler"] != "alive", (
        "nothing is scheduled here: reported, and the server is ready nevertheless"
    )

    db.execute("update flashsale_data.schema_state set digest = 'of another version'")
    outdated = client.get("/readyz")
    assert (outdated.status_code, outdated.json()["code"]) == (503, "not_ready")
    assert outdated.json()["schema"] == "outdated"

    db.execute("drop function flashsale.readiness() cascade")
    missing = client.get("/readyz")
    assert (missing.status_code, missing.json()["database"]) == (503, "reachable")
    assert client.get("/healthz").status_code == 200


@needs_pg_cron
def test_a_sweep_that_fails_is_reported_at_once(client: httpx.Client, db: psycopg.Connection) -> None:
    db.execute(
        "update flashsale_data.scheduler"
        " set schedule = '* * * * *', scheduled_at = now(), last_run_at = now()"
    )
    assert client.get("/readyz").json()["scheduler"] == "alive"
    db.execute("select flashsale.record_sweep('53100: the disk is full')")
    ready = client.get("/readyz")
    assert (ready.status_code, ready.json()["scheduler"]) == (200, "failing")
    assert ready.json()["scheduler_detail"].endswith(" failed: 53100: the disk is full")
    db.execute("call flashsale.sweep()")
    assert client.get("/readyz").json()["scheduler"] == "alive"
