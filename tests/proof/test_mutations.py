"""The tests can fail: faults are seeded in a copy of the code, and each must be caught there."""

import re
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterable
from pathlib import Path

import pytest

from tests.proof.campaign import Campaign
from tests.proof.faults import FAULTS, Fault
from tests.support import ROOT

CODE = ("api", "bench", "flashsale", "migrations", "sql", "tests", "gunicorn.conf.py", "pyproject.toml")


def copy_of_the_code(folder: Path, fault: Fault | None = None) -> Path:
    """A folder with the code in it, and the fault in that; this interpreter imports it from there."""
    for name in CODE:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, folder / name)
    if fault is not None:
        (folder / fault.path).write_text(fault.seeded((folder / fault.path).read_text()))
    return folder


def failures(folder: Path, tests: Iterable[str]) -> dict[str, str]:
    """The tests that fail, with what they say, up to and with the first.

    A test may also fail after its last line, when the books do not balance. One that cannot even begin tells
    nothing, and is an error here.
    """
    report = folder / "report.xml"
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", f"--junitxml={report}"]
    done = subprocess.run(
        [*command, *tests], cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=240
    )
    assert done.returncode in (0, 1), done.stdout + done.stderr
    found = {}
    for case in ElementTree.parse(report).iter("testcase"):
        for failure in (*case.iter("failure"), *case.iter("error")):
            said = failure.get("message", "")
            assert not said.startswith("failed on setup"), done.stdout
            found[f"{case.get('classname').replace('.', '/')}.py::{case.get('name')}"] = said
    assert (done.returncode == 1) == bool(found), done.stdout
    return found


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_a_fault_is_in_what_is_there_and_so_are_its_tests(fault: Fault) -> None:
    fault.seeded((ROOT / fault.path).read_text())
    assert fault.tests
    for test in fault.tests:
        file, name = re.fullmatch(r"(.+)::(\w+)(?:\[.+\])?", test).groups()
        assert re.search(rf"^def {name}\(", (ROOT / file).read_text(), re.MULTILINE), test


def test_what_runs_is_the_copy(tmp_path: Path) -> None:
    folder = copy_of_the_code(tmp_path)
    script = "import api, flashsale, tests; print(api.__file__, flashsale.__file__, tests.__file__)"
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=folder, capture_output=True, text=True, check=True
    )
    assert [Path(file).parent.parent for file in done.stdout.split()] == 3 * [folder]


def test_each_seeded_fault_is_caught(campaign: Campaign, tmp_path: Path) -> None:
    assert len(FAULTS) >= 40
    faults = campaign.size(campaign.random.sample(FAULTS, 2), FAULTS)
    tests = sorted({test for fault in faults for test in fault.tests})
    without = tmp_path / "without"
    without.mkdir()
    assert failures(copy_of_the_code(without), tests) == {}, "without a fault they pass"
    survived = []
    for number, fault in enumerate(faults):
        folder = tmp_path / str(number)
        folder.mkdir()
        caught = failures(copy_of_the_code(folder, fault), fault.tests)
        shutil.rmtree(folder)
        if caught:
            campaign.tried(fault.name, f"caught by {next(iter(caught))}")
        else:
            survived.append(fault.name)
    assert survived == []
