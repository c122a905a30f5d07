"""What a mutation is: a guard (tests/support/guards.py) and what stands there instead, or a statement.

It does not depend on the text of the code, which can be renamed, moved and rearranged. Landed migrations are
never edited: what they create is mutated by a statement that runs after them.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.support.guards import replaced

_CREATES = r"^create or replace (?:function|procedure|view) {}\b"


@dataclass(frozen=True)
class Mutation:
    """A guard replaced.

    :param description: what the mutated code does wrong
    :param guard: its name
    :param replacements: what stands there instead, for each place of the guard (guards.replaced)
    :param tests: pytest node ids, as narrow as possible; the first that fails has caught the mutation
    """

    description: str
    guard: str
    replacements: Sequence[str]
    tests: Sequence[str]

    def mutated(self, root: Path) -> dict[Path, str]:
        """The files that this mutation changes, by their path from `root`, with their mutated text."""
        return replaced(root, self.guard, self.replacements)


@dataclass(frozen=True)
class StatementMutation:
    """A statement that weakens an object of the database once it has been created.

    :param description: what the mutated schema allows
    :param guard: the object, with its schema
    :param statement: runs at the end of the file of sql/ that creates the object or, if none does, of the
        newest migration
    :param tests: as of a Mutation
    """

    description: str
    guard: str
    statement: str
    tests: Sequence[str]

    def mutated(self, root: Path) -> dict[Path, str]:
        """As of a Mutation."""
        path = self._file(root)
        return {path.relative_to(root): f"{path.read_text()}\n{self.statement};\n"}

    def _file(self, root: Path) -> Path:
        created = re.compile(_CREATES.format(re.escape(self.guard)), re.MULTILINE)
        for path in (root / "sql").rglob("*.sql"):
            if created.search(path.read_text()):
                return path
        migrations = sorted((root / "migrations").glob("*.sql"))
        text = re.sub(r"--.*", "", "".join(path.read_text() for path in migrations))
        word = re.escape(self.guard.rpartition(".")[2])
        assert re.search(rf"\b{word}\b", text), f"nothing creates {self.guard}"
        return migrations[-1]
