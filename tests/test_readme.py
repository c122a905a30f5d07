"""The README's console sessions, run against `flashsale up` as printed."""

import os
import re
import subprocess
from pathlib import Path

import pytest

from tests.support import ROOT, free_port

README = (ROOT / "README.md").read_text()
STEP = re.compile(r"^\$ (.+)\n((?:(?!\$ ).*\n)*)", re.MULTILINE)


def steps() -> list[tuple[str, str]]:
    """Every command of every console block, in order, with what the README says it prints."""
    blocks = re.findall(r"```console\n(.*?)```", README, re.DOTALL)
    return [(command, printed.strip("\n")) for block in blocks for command, printed in STEP.findall(block)]


def pattern(printed: str) -> str:
    return ".+".join(re.escape(part) for part in printed.split("…"))


@pytest.mark.slow
def test_every_command_prints_what_the_readme_says(running_up, tmp_path: Path) -> None:
    script = "set -o pipefail\n" + "".join(
        f"{command.replace('make -s', f'make -s -C {ROOT}')}\necho '--- end of {number}'\n"
        for number, (command, _) in enumerate(steps())
    )
    port = running_up.environment["FLASHSALE_PORT"]
    done = subprocess.run(
        ["bash", "-c", script.replace("localhost:8000", f"localhost:{port}")],
        cwd=tmp_path,
        env=running_up.environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    printed = re.split(r"--- end of \d+\n", done.stdout)
    for (command, expected), actual in zip(steps(), printed, strict=False):
        said = actual.replace("\r", "").strip("\n")
        assert re.fullmatch(pattern(expected), said, re.DOTALL), f"$ {command}\n{said}\n{done.stderr}"
    assert len(printed) == len(steps()) + 1
