"""The server against its own /openapi.json: schemathesis makes up requests, alone and in sequences."""

import os
import re
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest

from api.openapi.operations.shared import HOLD_ID, ORDER_ID

HERE = Path(__file__).parent


def make_the_examples_true(db: psycopg.Connection) -> None:
    """Sell so much that nothing is ever short, and have the hold and the order that the examples name."""
    db.execute("select flashsale.create_product('Shoe', 2147483647, 99, 'USD')")
    db.execute("select flashsale.create_order(hold_id) from flashsale.place_hold(1, 1)")
    db.execute("set session_replication_role = replica")  # no foreign keys
    db.execute("update flashsale_data.holds set hold_id = %s", (HOLD_ID,))
    db.execute("update flashsale_data.orders set hold_id = %s, order_id = %s", (HOLD_ID, ORDER_ID))


def schemathesis(server: str, folder: Path, *options: str) -> int:
    """Run it from `folder`; it must find nothing. How many cases it tried."""
    run = subprocess.run(
        [
            Path(sys.executable).with_name("schemathesis"),
            f"--config-file={HERE / 'schemathesis.toml'}",
            "--no-color",
            "run",
            f"{server}/openapi.json",
            *options,
        ],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(HERE)},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    summary = re.search(r"(\d+) generated, (\d+) passed\n", run.stdout)
    assert summary, run.stdout
    assert summary[1] == summary[2]
    assert "WARNINGS" not in run.stdout, run.stdout
    return int(summary[1])


@pytest.mark.slow
def test_schemathesis_finds_nothing(server: str, db: psycopg.Connection, tmp_path: Path) -> None:
    make_the_examples_true(db)
    assert schemathesis(server, tmp_path) > 500
    log = (tmp_path / "gunicorn.log").read_text()
    assert '"level":"error"' not in log, log
