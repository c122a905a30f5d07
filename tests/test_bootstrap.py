"""bin/bootstrap when there is nothing left to do, which is nearly always."""

import subprocess
import time

import pytest

from tests.support import ROOT

STAMP = ROOT / ".venv/.bootstrap"

pytestmark = pytest.mark.skipif(not STAMP.exists(), reason="the suite runs in another environment than .venv")


@pytest.mark.parametrize("extras", [[], ["test"]], ids=["up", "test"])
def test_a_second_run_does_nothing_at_once(extras):
    before = STAMP.stat().st_mtime_ns
    start = time.monotonic()
    done = subprocess.run([ROOT / "bin/bootstrap", *extras], capture_output=True, text=True, check=True)
    assert time.monotonic() - start < 1
    assert (done.stdout, done.stderr) == ("", "")
    assert STAMP.stat().st_mtime_ns == before
