"""`flashsale doctor`: limits that the server's promises need, and the remedies, followed as printed."""

import json
import os
import re
import resource
import subprocess
import sys

import pytest

from flashsale.doctor import limits
from tests.doctor.findings import after, only, problems
from tests.support import ROOT

NEEDED = limits.CONNECTIONS_PER_WORKER


def test_few_open_files_are_a_warning_and_the_remedy_works():
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < limits.FILES:
        pytest.skip("this machine itself admits too few open files")

    def finding(command: str = "true") -> dict:
        """Doctor's, after the limit is lowered and `command` is run in the same shell."""
        doctor = f"ulimit -Sn 300; {command}; {sys.executable} -m flashsale doctor --json"
        done = subprocess.run(
            ["prlimit", f"--nofile=300:{300 if command == 'true' else hard}", "bash", "-c", doctor],
            cwd=ROOT,
            env={"FLASHSALE_DATABASE_URL": "postgresql://127.0.0.1:1/x", "PATH": os.environ["PATH"]},
            capture_output=True, text=True,
        )  # fmt: skip
        return next(f for f in json.loads(done.stdout)["findings"] if f["check"] == "open_files")

    found = finding()
    assert (found["status"], found["detail"]) == (
        "warning", "a worker may open 300 files: of 2000 requests at once, 200 can be connected",
    )  # fmt: skip
    remedy = re.search(r"ulimit -n \d+", found["remedy"])
    assert finding(remedy[0])["status"] == "ok"


def test_few_connections_of_the_server_are_a_warning(db):
    assert problems(limits.connections, db, {}) == []
    admitted = 300 - int(db.execute("show superuser_reserved_connections").fetchone()[0])
    (found,) = limits.connections(db, {"WEB_CONCURRENCY": "40"})
    assert found.status == "warning"
    assert found.detail == f"the workers open up to {40 * NEEDED} connections, the server admits {admitted}"
    assert found.remedy == f"alter system set max_connections = {40 * NEEDED + 20}; restart PostgreSQL"


@pytest.mark.parametrize("whom", ["database flashsale_doctor", "role flashsale_app"])
def test_few_connections_of_a_role_or_the_database_are_a_warning_and_the_remedy_works(db, whom):
    with after(db, f"alter {whom} connection limit 13"):
        assert [status for status, _ in problems(limits.connections, db, {})] == ["warning"]
        assert "13" in only(limits.connections, db, {}).detail
        db.execute(only(limits.connections, db, {}).remedy)
        assert problems(limits.connections, db, {}) == []


def test_the_limits_of_operators_are_theirs(db):
    with after(db, "create role olivia login connection limit 2 in role flashsale_ops"):
        assert problems(limits.connections, db, {}) == []
