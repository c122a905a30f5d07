"""GET /healthz and /readyz."""

import httpx
import psycopg


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
