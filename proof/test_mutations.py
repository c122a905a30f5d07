"""The tests can fail: each mutation of a copy of the code is caught by a test that runs in the copy."""

import ast
import os
import re
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import pytest

from proof.campaign import Campaign
from proof.mutation import Mutation, StatementMutation
from proof.mutations import MUTATIONS
from tests.page.conftest import CHROMIUM
from tests.support import ROOT
from tests.support.guards import guards, replaced

CODE = (
    *("api", "bench", "flashsale", "migrations", "proof", "sql", "tests"),
    *("conftest.py", "gunicorn.conf.py", "pyproject.toml"),
)
NODE = shutil.which("node")
STALE = re.compile(
    r"\b(Undefined(Column|Function|Object|Parameter|Table)|AmbiguousColumn|DatatypeMismatch|SyntaxError"
    r"|42(601|702|703|704|804|883|P01|P02)"
    r"|(column|function|operator|relation) .+ does not exist|syntax error at|is not a known variable"
    r"|NameError|UnboundLocalError|AttributeError|ImportError)\b"
)
"""errors of a replacement that does not fit the code any more: it fails every test and so proves nothing"""


def copy_of_the_code(folder: Path, mutation: Mutation | StatementMutation | None = None) -> Path:
    """A folder with the code in it, mutated; this interpreter imports it from there."""
    for name in CODE:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, folder / name)
    if mutation is not None:
        for path, text in mutation.mutated(folder).items():
            (folder / path).write_text(text)
    return folder


def failures(folder: Path, tests: Iterable[str]) -> dict[str, str]:
    """The tests that fail, with what they say, up to and with the first.

    A test may also fail after its last line, when audit() finds something. A failure of its setup, or of a
    replacement that does not fit the code, is an error here.
    """
    report = folder / "report.xml"
    command = [
        *(sys.executable, "-m", "pytest", "-q", "-x", f"--junitxml={report}"),
        *("-p", "no:cacheprovider", "-p", "pytest_postgresql.plugin"),
    ]
    done = subprocess.run(
        [*command, *tests],
        cwd=folder,
        # A quarter of a short run is the import of plugins that these tests do not need.
        # A test of the page waits in vain for what a mutation has removed.
        env=os.environ | {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "FLASHSALE_PAGE_PATIENCE": "20"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode in (0, 1), done.stdout + done.stderr
    found = {}
    for case in ElementTree.parse(report).iter("testcase"):
        for failure in (*case.iter("failure"), *case.iter("error")):
            said = failure.get("message", "")
            assert not said.startswith("failed on setup"), done.stdout
            assert not STALE.search(said), f"a replacement does not fit the code: {said}"
            found[f"{case.get('classname').replace('.', '/')}.py::{case.get('name')}"] = said
    assert (done.returncode == 1) == bool(found), done.stdout
    return found


def is_testable(mutation: Mutation | StatementMutation) -> bool:
    """Whether this machine has what its tests need: tests of the page are skipped without a browser."""
    return CHROMIUM is not None or not any(test.startswith("tests/page/") for test in mutation.tests)


def test_every_guard_has_a_mutation_and_every_mutation_its_guard() -> None:
    places = Counter(place.name for place in guards(ROOT))
    mutations = [mutation for mutation in MUTATIONS if isinstance(mutation, Mutation)]
    assert {mutation.guard for mutation in mutations} == set(places)
    for mutation in mutations:
        assert len(mutation.replacements) == places[mutation.guard], mutation.guard


def test_every_mutation_is_described_once() -> None:
    descriptions = Counter(mutation.description for mutation in MUTATIONS)
    assert [description for description, count in descriptions.items() if count > 1] == []


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.description)
def test_a_mutation_changes_the_code_and_its_tests_exist(mutation: Mutation | StatementMutation) -> None:
    mutated = mutation.mutated(ROOT)
    assert mutated
    for path, text in mutated.items():
        assert text != (ROOT / path).read_text(), path
        if path.suffix == ".py":
            ast.parse(text, str(path))
        elif path.suffix == ".js" and NODE is not None:
            check = [NODE, "--check", "--input-type=module"]
            subprocess.run(check, input=text, text=True, capture_output=True, check=True)
    assert mutation.tests
    for test in mutation.tests:
        file, name = re.fullmatch(r"(.+)::(\w+)(?:\[.+\])?", test).groups()
        assert re.search(rf"^(?:async )?def {name}\(", (ROOT / file).read_text(), re.MULTILINE), test


@pytest.mark.parametrize(
    ("text", "replacement", "mutated"),
    [
        ("if a then -- guard: g\nb;", "if true then", "if true then\nb;"),
        ("  -- guard: g\n  long;", "", "  -- guard: g\n\n"),
        ("  call();  # guard: g", "first\n{line}", "  first\n  call();"),
        ("a;\n-- guard: other\nb; -- guard: g", "c;", "a;\n-- guard: other\nc;"),
    ],
)
def test_a_replacement_stands_at_the_place_of_the_line(
    tmp_path: Path, text: str, replacement: str, mutated: str
) -> None:
    (tmp_path / "sql").mkdir()
    path = Path("sql") / "file.sql"
    (tmp_path / path).write_text(text)
    assert replaced(tmp_path, "g", [replacement]) == {path: mutated.removesuffix("\n")}


def test_a_guard_that_is_not_in_the_code_is_an_error() -> None:
    with pytest.raises(AssertionError, match="guard no-such-guard is at 0 places"):
        replaced(ROOT, "no-such-guard", [""])


def test_an_object_that_is_not_in_the_schema_is_an_error() -> None:
    with pytest.raises(AssertionError, match=r"nothing creates flashsale\.no_such_object"):
        StatementMutation("", "flashsale.no_such_object", "select", []).mutated(ROOT)


def test_a_replacement_that_does_not_fit_the_code_catches_nothing(tmp_path: Path) -> None:
    test = "tests/sql/test_place_hold.py::test_more_than_there_is_is_insufficient_stock"
    stale = Mutation("", "units-left", ["when v_old_name then null"], [test])
    with pytest.raises(AssertionError, match=r"does not fit the code: .*v_old_name"):
        failures(copy_of_the_code(tmp_path, stale), stale.tests)


def test_what_runs_is_the_copy(tmp_path: Path) -> None:
    folder = copy_of_the_code(tmp_path)
    script = "import api, flashsale, tests; print(api.__file__, flashsale.__file__, tests.__file__)"
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=folder, capture_output=True, text=True, check=True
    )
    assert [Path(file).parent.parent for file in done.stdout.split()] == 3 * [folder]


def test_each_mutation_is_caught(
    request: pytest.FixtureRequest, campaign: Campaign, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    guard = request.config.getoption("--proof-guard")
    if guard is None:
        testable = [mutation for mutation in MUTATIONS if is_testable(mutation)]
        mutations = campaign.size(campaign.random.sample(testable, 2), testable)
    else:
        mutations = [mutation for mutation in MUTATIONS if mutation.guard == guard]
        assert mutations, f"no mutation has the guard {guard}"
    tests = sorted({test for mutation in mutations for test in mutation.tests})
    without = tmp_path / "without"
    without.mkdir()
    assert failures(copy_of_the_code(without), tests) == {}, "without a mutation they pass"
    survived = []
    for number, mutation in enumerate(mutations):
        folder = tmp_path / str(number)
        folder.mkdir()
        caught = failures(copy_of_the_code(folder, mutation), mutation.tests)
        shutil.rmtree(folder)
        if not caught:
            survived.append(mutation.description)
        if campaign.full or guard is not None:
            result = f"caught by {next(iter(caught))}" if caught else "SURVIVED"
            with capsys.disabled():
                print(f"{mutation.description}: {result}")
    campaign.record(
        f"{len(mutations)} mutations of the code, each against its tests",
        f"not caught: {'; '.join(survived)}" if survived else "all caught",
        mutations=len(mutations),
    )
    assert survived == []
