"""Documents whose examples are run: what is in them, and somebody who types it all, in order.

Fenced blocks say by their language what they are:

    console   lines after "$ " go to one shell, the others are what it prints
    sql       goes to psql: as a superuser where the sentence before says so, else as the document's role
    python    one program, all blocks of a document together
    text      what the sql or python block before it prints
    sh        for people; tests/docs/test_every_document.py looks whether there are such commands
    yaml      settings of another program, for people
    json      what a program prints, held against it by a test of its own
    none      no example

"…" stands for what differs each time; on a line of its own, for any lines.
"""

import contextlib
import io
import os
import re
import subprocess
import threading
from collections.abc import Mapping
from itertools import takewhile
from pathlib import Path
from typing import NamedTuple

from tests.support import ROOT

PATHS = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md"))]

_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$\n?", re.MULTILINE | re.DOTALL)
_COMMAND = re.compile(r"^\$ (.+)\n((?:(?!\$ ).*\n)*)", re.MULTILINE)
_AS_SUPERUSER = re.compile(r"As a superuser[^.]*:$")
_END = "--- end of a step"
PATIENCE = 60
"""seconds for one example"""


class Block(NamedTuple):
    """A fenced block.

    :param before: the paragraph that leads up to it
    """

    kind: str
    text: str
    before: str


class Example(NamedTuple):
    """Something to type.

    :param printed: what comes back; None where the document does not say
    """

    kind: str
    text: str
    printed: str | None
    as_superuser: bool = False


def blocks(path: Path) -> list[Block]:
    text = path.read_text()
    return [
        Block(found[1], found[2], text[: found.start()].rstrip().rsplit("\n\n", 1)[-1])
        for found in _BLOCK.finditer(text)
    ]


def examples(path: Path) -> list[Example]:
    """What the document gives to type, in order."""
    found = []
    for block in blocks(path):
        if block.kind == "console":
            found += [Example("console", *pair) for pair in _COMMAND.findall(block.text)]
        elif block.kind in ("sql", "python"):
            found.append(Example(block.kind, block.text, None, bool(_AS_SUPERUSER.search(block.before))))
        elif block.kind == "text":
            assert found[-1].printed is None, f"nothing prints this:\n{block.text}"
            found[-1] = found[-1]._replace(printed=block.text)
    return found


def prints(example: Example, printed: str) -> bool:
    """Whether it printed what the document says, not counting what only aligns a table."""
    if example.printed is None:
        return True
    lines = [
        r"(?:.*\n)*" if line == "…" else ".+".join(map(re.escape, line.split("…"))) + "\n"
        for line in _plain(example.printed)
    ]
    return bool(re.fullmatch("".join(lines), "".join(f"{line}\n" for line in _plain(printed))))


def _plain(text: str) -> list[str]:
    lines = [" ".join(line.split()) for line in text.replace("\r", "").splitlines()]
    return [line for line in lines if line.strip("-+ ")]


class Reader:
    """Types examples, and knows what has come of those before.

    :param superuser: database URL of a superuser
    :param role: database URL of the role that the document speaks of
    :param instead: what to type in place of words of the document, such as its port
    :param environment: of the shell and of Python, over that of the tests
    """

    def __init__(
        self,
        folder: Path,
        *,
        superuser: str = "",
        role: str = "",
        instead: Mapping[str, str] | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.names: dict = {"__name__": "document"}
        """what the document's Python has defined"""
        self._urls = {True: superuser, False: role}
        self._instead = {".venv/": f"{ROOT}/.venv/", **(instead or {})}
        self._environment = dict(environment or {})
        self._bash = subprocess.Popen(
            ["bash"],
            cwd=folder,
            env=os.environ | self._environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def __enter__(self) -> "Reader":
        return self

    def __exit__(self, *_: object) -> None:
        self._bash.kill()
        self._bash.communicate()

    def type(self, example: Example) -> str:
        """Do it; what is printed."""
        return getattr(self, f"_{example.kind}")(example)

    def type_all(self, path: Path) -> None:
        """Do all of a document; each example has to print what the document says."""
        for example in examples(path):
            printed = self.type(example)
            assert prints(example, printed), f"{path.name}: {example.text}\nprints\n{printed}"

    def _console(self, example: Example) -> str:
        command = example.text
        for word, other in self._instead.items():
            command = command.replace(word, other)
        watchdog = threading.Timer(PATIENCE, self._bash.kill)
        watchdog.start()
        try:
            self._bash.stdin.write(f"{command}\necho; echo '{_END}'\n")
            self._bash.stdin.flush()
            lines = iter(self._bash.stdout.readline, "")
            return "".join(takewhile(lambda line: line != f"{_END}\n", lines))
        finally:
            watchdog.cancel()

    def _sql(self, example: Example) -> str:
        command = ["psql", "-Xq", "-v", "ON_ERROR_STOP=1", self._urls[example.as_superuser]]
        done = subprocess.run(command, input=example.text, capture_output=True, text=True, timeout=PATIENCE)
        assert done.returncode == 0, f"{example.text}\n{done.stderr}"
        return done.stdout

    def _python(self, example: Example) -> str:
        output = io.StringIO()
        with contextlib.redirect_stdout(output):
            exec(compile(example.text, "document", "exec"), self.names)
        return output.getvalue()
