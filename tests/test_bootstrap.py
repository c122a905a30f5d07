"""bin/bootstrap when there is nothing left to do, which is nearly always."""

import resource
import subprocess

import pytest

from tests.support import ROOT, servers

STAMP = ROOT / ".venv/.bootstrap"

pytestmark = pytest.mark.skipif(not STAMP.exists(), reason="the suite runs in another environment than .venv")


def work() -> float:
    """Seconds of processor time that children have used: what a busy machine does not stretch."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


@pytest.mark.parametrize(
    "extras",
    [
        [],
        ["test"],
        pytest.param(["servers"], marks=servers.needs(*servers.NAMES)),
    ],
    ids=["up", "test", "servers"],
)
def test_a_second_run_does_nothing_at_once(extras):
    before = STAMP.stat().st_mtime_ns
    start = work()
    done = subprocess.run([ROOT / "bin/bootstrap", *extras], capture_output=True, text=True, check=True)
    assert work() - start < 1
    assert (done.stdout, done.stderr) == ("", "")
    assert STAMP.stat().st_mtime_ns == before
