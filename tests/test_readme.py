"""The README's console sessions, run against `flashsale up` as printed."""

import os
import re
import subprocess
from pathlib import Path

import pytest

from tests.support import ROOT
from tests.upping import FLASHSALE, Up, data_folder

README = (ROOT / "README.md").read_text()
COMMAND = re.compile(r"^\$ (.+)\n((?:(?!\$ ).*\n)*)", re.MULTILINE)


def steps() -> list[tuple[str, str]]:
    """Every command of every console block, in order, with what the README says it prints."""
    blocks = re.findall(r"```console\n(.*?)```", README, re.DOTALL)
    return [(command, printed.strip("\n")) for block in blocks for command, printed in COMMAND.findall(block)]


def pattern(printed: str) -> str:
    return ".+".join(re.escape(part) for part in printed.split("…"))


@pytest.mark.slow
def test_every_command_prints_what_the_readme_says(tmp_path: Path) -> None:
    script = "".join(f"{command}\necho '--- end of a step'\n" for command, _ in steps())
    with data_folder() as folder:
        up = Up(folder, [*FLASHSALE, "up"]).wait_until_it_is_up()
        try:
            done = subprocess.run(
                [
                    "bash",
                    "-c",
                    script.replace("localhost:8000", f"localhost:{up.port}").replace(
                        ".venv", f"{ROOT}/.venv"
                    ),
                ],
                cwd=tmp_path,
                env=os.environ | {"FLASHSALE_DATA_DIR": str(folder)},
                capture_output=True,
                text=True,
                timeout=120,
            )
        finally:
            up.stop()
    printed = done.stdout.replace("\r", "").split("--- end of a step\n")
    assert len(printed) == len(steps()) + 1
    for (command, expected), said in zip(steps(), printed, strict=False):
        assert re.fullmatch(pattern(expected), said.strip("\n")), f"$ {command}\n{said}\n{done.stderr}"
