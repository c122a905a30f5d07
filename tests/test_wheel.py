"""The wheel, installed into an environment that does not see the checkout."""

import json
import os
import subprocess
import sys
import sysconfig
import urllib.request
import venv
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support import ROOT
from tests.support.flashsale_up import Up, data_folder

pytestmark = pytest.mark.slow


def build(target: str, directory: Path, source: Path = ROOT) -> Path:
    """Build a wheel or an sdist, without the network."""
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", target, "-d", directory],
        cwd=source,
        check=True,
        capture_output=True,
    )
    (built,) = directory.iterdir()
    return built


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build("wheel", tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A virtual environment with the wheel, and with the dependencies of the running one.

    The added directory's own .pth files are not read, among them the one that names the checkout.
    """
    directory = tmp_path_factory.mktemp("environment")
    venv.create(directory, symlinks=True)
    paths = {
        name: sysconfig.get_path(name, "venv", {"base": str(directory)}) for name in ("purelib", "scripts")
    }
    (Path(paths["purelib"]) / "dependencies.pth").write_text(sysconfig.get_path("purelib"))
    subprocess.run(
        [
            *[sys.executable, "-m", "pip", "--python", str(directory / "bin/python")],
            *["install", "--quiet", "--disable-pip-version-check", "--no-index", "--no-deps"],
            *["--ignore-installed", str(wheel)],
        ],
        check=True,
    )
    return directory


@pytest.fixture(scope="module")
def directory() -> Iterator[Path]:
    """The current directory of the commands; PostgreSQL's account can enter it."""
    with data_folder() as made:
        made.mkdir(mode=0o711)
        yield made


@pytest.fixture(scope="module")
def up(environment: Path, directory: Path) -> Iterator[Up]:
    """`flashsale up` of the wheel, with the default data directory."""
    command = [str(environment / "bin/flashsale"), "up"]
    started = Up(directory / ".flashsale", command, cwd=directory, FLASHSALE_DATA_DIR="")
    try:
        yield started.wait_until_it_is_up()
    finally:
        started.stop()
        subprocess.run([*command[:1], "destroy"], cwd=directory, env=clean_environment(), check=True)


def clean_environment(**more: str) -> dict[str, str]:
    """Without the variables that change where commands connect and where Python finds modules."""
    inherited = {
        name: value for name, value in os.environ.items() if not name.startswith(("FLASHSALE_", "PYTHON"))
    }
    return inherited | more


@pytest.fixture
def flashsale(environment: Path, directory: Path, up: Up) -> Callable[..., str]:
    """flashsale("doctor") runs the wheel's command; returns its standard output."""

    def run(*arguments: str) -> str:
        done = subprocess.run(
            [environment / "bin/flashsale", *arguments],
            cwd=directory,
            env=clean_environment(FLASHSALE_PORT=str(up.port)),
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done
        return done.stdout

    return run


def test_the_wheel_has_two_packages_and_all_their_data(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    assert {name.split("/")[0] for name in names if ".dist-info/" not in name} == {"api", "flashsale"}
    tracked = subprocess.run(
        ["git", "ls-files", "api", "flashsale", "sql", "migrations", "gunicorn.conf.py"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    ).stdout.split()  # fmt: skip
    homes = {"sql": "api/database/sql", "migrations": "api/database/migrations"}
    homes["gunicorn.conf.py"] = "flashsale/gunicorn.conf.py"
    for path in tracked:
        top, slash, rest = path.partition("/")
        assert f"{homes.get(top, top)}{slash}{rest}" in names


def test_the_sdist_builds_the_same_wheel(wheel: Path, tmp_path: Path) -> None:
    sdist = build("sdist", tmp_path / "sdist")
    # Python 3.11.2, of Debian 12, has no safe way to extract: no `filter`.
    subprocess.run(["tar", "-xf", sdist, "-C", tmp_path], check=True)
    (unpacked,) = tmp_path.glob("flashsale-*")
    rebuilt = build("wheel", tmp_path / "wheel", source=unpacked)
    with zipfile.ZipFile(wheel) as ours, zipfile.ZipFile(rebuilt) as theirs:
        assert sorted(ours.namelist()) == sorted(theirs.namelist())


def test_modules_come_from_the_wheel(environment: Path, directory: Path) -> None:
    code = "import api, flashsale; print(api.__file__, flashsale.__file__)"
    done = subprocess.run(
        [environment / "bin/python", "-c", code],
        cwd=directory, env=clean_environment(), capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert all(path.startswith(str(environment)) for path in done.stdout.split())


def test_up_serves_holds_and_pages(up: Up, directory: Path) -> None:
    assert (directory / ".flashsale/postgres").is_dir()
    before = up.get("/api/products/1")["available_stock"]
    up.hold(2)
    assert up.get("/api/products/1")["available_stock"] == before - 2
    for page in ("/", "/docs", "/openapi.json"):
        with urllib.request.urlopen(up.url + page, timeout=10) as response:
            assert response.read()


def test_doctor_passes(flashsale: Callable[..., str]) -> None:
    assert json.loads(flashsale("doctor", "--json"))["ok"] is True


def test_rehearse_passes(flashsale: Callable[..., str], directory: Path) -> None:
    result = json.loads(flashsale("rehearse", "--buyers", "40", "--stock", "10", "--json"))
    assert result["units"]["sold"] == 10
    assert "all checks passed" in (directory / "rehearsal.html").read_text()
