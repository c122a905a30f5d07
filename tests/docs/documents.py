"""Reads the examples of a document, and runs them in order.

The language of a fenced block determines how it is run:

    console   lines after "$ " are passed to one shell, the others are its output; a line that ends in "\\"
              continues on the next
    sql       is passed to psql: as a superuser if the sentence before says so, else as the document's role
    python    one program, all blocks of a document together
    text      the output of the sql or python block before it
    sh        is not run; tests/docs/test_every_document.py checks that the commands exist
    yaml      settings of another program; not run
    ini       settings of another program, which a test passes to it
    json      a program's output, which another test checks
    none      no example

"…" stands for text that differs each time; on a line of its own, for any lines.
"""

import contextlib
import io
import os
import re
import signal
import subprocess
import threading
from collections.abc import Mapping
from itertools import takewhile
from pathlib import Path
from typing import NamedTuple

from tests.support import ROOT

PATHS = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md"))]

_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$\n?", re.MULTILINE | re.DOTALL)
_COMMAND = re.compile(r"^\$ ((?:.+\\\n)*.+)\n((?:(?!\$ ).*\n)*)", re.MULTILINE)
_AS_SUPERUSER = re.compile(r"As a superuser[^.]*:$")
_END = "--- end of a step"
MAX_SECONDS = 60
"""seconds for one example"""


class Block(NamedTuple):
    """A fenced block.

    :param before: the paragraph before it
    """

    kind: str
    text: str
    before: str


class Example(NamedTuple):
    """A command to run.

    :param printed: its expected output; None if the document does not give it
    """

    kind: str
    text: str
    printed: str | None
    as_superuser: bool = False


def sections(path: Path) -> dict[str, str]:
    """The text below each heading of the second level, by heading."""
    parts = re.split(r"^## (.+)$", path.read_text(), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def blocks(path: Path, section: str | None = None) -> list[Block]:
    text = path.read_text() if section is None else sections(path)[section]
    return [
        Block(found[1], found[2], text[: found.start()].rstrip().rsplit("\n\n", 1)[-1])
        for found in _BLOCK.finditer(text)
    ]


def examples(path: Path, section: str | None = None) -> list[Example]:
    """The commands of the document, or of one section of it, in order."""
    found = []
    for block in blocks(path, section):
        if block.kind == "console":
            found += [Example("console", *pair) for pair in _COMMAND.findall(block.text)]
        elif block.kind in ("sql", "python"):
            found.append(Example(block.kind, block.text, None, bool(_AS_SUPERUSER.search(block.before))))
        elif block.kind == "text":
            assert found[-1].printed is None, f"nothing prints this:\n{block.text}"
            found[-1] = found[-1]._replace(printed=block.text)
    return found


def prints(example: Example, printed: str) -> bool:
    """Whether `printed` matches the document, apart from the alignment of tables."""
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
    """Runs examples in one shell and one Python namespace; later ones see the effects of earlier ones.

    :param superuser: database URL of a superuser
    :param role: database URL of the document's role
    :param instead: replacements for words of the document, such as its port
    :param environment: of the shell, in addition to that of the tests
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
        """the names that the document's Python has defined"""
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
            start_new_session=True,
        )

    def __enter__(self) -> "Reader":
        return self

    def __exit__(self, *_: object) -> None:
        self._bash.kill()
        self._bash.communicate()

    def type(self, example: Example) -> str:
        """Run an example; returns its output."""
        return getattr(self, f"_{example.kind}")(example)

    def type_all(self, path: Path, section: str | None = None) -> None:
        """Run all examples of a document, or of one section of it; each must print what the document says."""
        for example in examples(path, section):
            self.check(example)

    def check(self, example: Example) -> None:
        """Run an example, which must print what the document says."""
        printed = self.type(example)
        assert prints(example, printed), f"{example.text}\nprints\n{printed}"

    def _console(self, example: Example) -> str:
        command = example.text
        for word, other in self._instead.items():
            command = command.replace(word, other)
        # With the command that it waits for, which has the same output.
        watchdog = threading.Timer(MAX_SECONDS, os.killpg, (self._bash.pid, signal.SIGKILL))
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
        done = subprocess.run(
            command, input=example.text, capture_output=True, text=True, timeout=MAX_SECONDS
        )
        assert done.returncode == 0, f"{example.text}\n{done.stderr}"
        return done.stdout

    def _python(self, example: Example) -> str:
        output = io.StringIO()
        with contextlib.redirect_stdout(output):
            exec(compile(example.text, "document", "exec"), self.names)
        return output.getvalue()
