"""Guards of the code, found by the comments that name them, and the code with a guard replaced.

A guard is a lock, a comparison or another line that a promise rests on. A comment names it, `-- guard: name`
in SQL, `# guard: name` in Python and `// guard: name` in JavaScript, at the end of the guarded line or, if
that line would become longer than 110 characters, alone on the line above it. A guard may be at several
places.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

FOLDERS = ("api", "flashsale", "sql")
LINE = "{line}"
"""in a replacement: the guarded line as it is"""

_COMMENT = re.compile(r"(?P<code>.*?)\s*(?:--|#|//) guard: (?P<name>[a-z][a-z0-9]*(?:-[a-z0-9]+)*)")


@dataclass(frozen=True)
class Place:
    """A guarded line.

    :param name: of the guard
    :param path: of the file, from the root
    :param line: its number, from 0
    :param code: the line without the comment
    """

    name: str
    path: Path
    line: int
    code: str


def guards(root: Path) -> Iterator[Place]:
    """Every guarded line of the code, by path and line."""
    for folder in FOLDERS:
        for path in sorted((root / folder).rglob("*")):
            if path.suffix in (".js", ".py", ".sql"):
                yield from _guards(path.relative_to(root), path.read_text().split("\n"))


def _guards(path: Path, lines: list[str]) -> Iterator[Place]:
    for number, line in enumerate(lines):
        if " guard: " not in line:
            continue
        found = _COMMENT.fullmatch(line)
        assert found, f"{path}:{number + 1} does not name a guard: {line.strip()}"
        if found["code"].strip():
            yield Place(found["name"], path, number, found["code"])
        else:
            yield Place(found["name"], path, number + 1, lines[number + 1])


def replaced(root: Path, guard: str, replacements: Sequence[str]) -> dict[Path, str]:
    """The files with this guard, by their path from `root`, with each place of it replaced.

    :param replacements: for each place, in the order of guards(), what stands there instead of the line, from
        which it takes the indentation; "" removes the line
    """
    places = [place for place in guards(root) if place.name == guard]
    assert len(places) == len(replacements), f"guard {guard} is at {len(places)} places"
    files = {place.path: (root / place.path).read_text().split("\n") for place in places}
    for place, replacement in zip(places, replacements, strict=True):
        code = place.code.strip()
        indent = place.code.removesuffix(code)
        lines = [indent + line.replace(LINE, code) for line in replacement.split("\n")]
        files[place.path][place.line] = "\n".join(lines).rstrip()
    return {path: "\n".join(lines) for path, lines in files.items()}
