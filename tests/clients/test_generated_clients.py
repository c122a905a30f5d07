"""Clients that others generate from /openapi.json: they compile strictly, and buy from a running server.

The programs beside this file are what a caller writes on top of a generated client. What is generated exists
for the time of a test only.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import psycopg
import pytest

from flashsale.database.seed import APP_ROLE
from flashsale.local.cluster import Cluster
from tests.api.test_settings import SECRET
from tests.support import servers
from tests.support.http import running_server

HERE = Path(__file__).parent
COMPILER = {
    "strict": True,
    "noUncheckedIndexedAccess": True,
    "exactOptionalPropertyTypes": True,
    "noUnusedLocals": True,
    "target": "es2022",
    "module": "nodenext",
    "lib": ["es2022", "dom"],
    "types": ["node"],
}
CHECKER = """
[mypy]
strict = True
[mypy-flashsale_client.client]
# The same for every document: the generator's own __exit__ takes objects.
disable_error_code = arg-type
"""

pytestmark = pytest.mark.slow


@pytest.fixture
def signing_server(db: psycopg.Connection, cluster: Cluster, tmp_path: Path) -> Iterator[str]:
    db.execute("select flashsale.create_product('Shoe', 50, 99, 'USD')")
    url = cluster.url(APP_ROLE, db.info.dbname)
    secrets = {"FLASHSALE_WEBHOOK_SECRETS": SECRET, "FLASHSALE_ALLOW_UNSIGNED_WEBHOOKS": "0"}
    with running_server(url, tmp_path / "gunicorn.log", **secrets) as base:
        yield base


def run(folder: Path, *command: str | Path, **environment: str) -> str:
    done = subprocess.run(
        command, cwd=folder, env=os.environ | environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def save_document(server: str, folder: Path) -> Path:
    path = folder / "openapi.json"
    path.write_bytes(httpx.get(f"{server}/openapi.json").content)
    return path


def is_paid(db: psycopg.Connection, printed: str) -> None:
    bought = json.loads(printed)
    assert (bought["qty"], bought["status"]) == (2, "paid")
    event = "select payload->>'payment_method' from flashsale.payments where order_id = %s"
    assert db.execute(event, (bought["order_id"],)).fetchall() == [("card",)]


@servers.needs("openapi-typescript")
def test_a_typescript_client_buys(signing_server: str, db: psycopg.Connection, tmp_path: Path) -> None:
    tools = servers.find("openapi-typescript")
    assert tools is not None
    modules = tools / "node_modules"
    (tmp_path / "node_modules").symlink_to(modules)
    (tmp_path / "package.json").write_text('{"type": "module"}')
    (tmp_path / "tsconfig.json").write_text(json.dumps({"compilerOptions": COMPILER, "files": ["buy.ts"]}))
    shutil.copy(HERE / "buy.ts", tmp_path)
    document = save_document(signing_server, tmp_path)
    run(tmp_path, "node", modules / "openapi-typescript/bin/cli.js", document, "-o", tmp_path / "schema.d.ts")
    run(tmp_path, "node", modules / "typescript/bin/tsc", "-p", tmp_path)
    is_paid(db, run(tmp_path, "node", "buy.js", signing_server, SECRET))


@servers.needs("openapi-python-client")
def test_a_python_client_buys(signing_server: str, db: psycopg.Connection, tmp_path: Path) -> None:
    tools = servers.find("openapi-python-client")
    assert tools is not None
    with_tools = {"PYTHONPATH": str(tools), "PATH": f"{tools / 'bin'}:{os.environ['PATH']}"}
    document = save_document(signing_server, tmp_path)
    package = tmp_path / "flashsale_client"
    generate = ("-m", "openapi_python_client", "generate", "--meta", "none", "--fail-on-warning")
    run(tmp_path, sys.executable, *generate, "--path", document, "--output-path", package, **with_tools)
    shutil.copy(HERE / "buy.py", tmp_path)
    (tmp_path / "mypy.ini").write_text(CHECKER)
    check = ("-m", "mypy", "--cache-dir", tmp_path / "cache", package, "buy.py")
    run(tmp_path, sys.executable, *check, **with_tools)
    is_paid(db, run(tmp_path, sys.executable, "buy.py", signing_server, SECRET))
