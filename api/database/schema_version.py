"""The schema that this version expects in the database: the files of sql/ and of migrations/.

A wheel carries both folders beside this file; in a checkout they are at its root.
"""

import hashlib
from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent
_HOME = _PACKAGE if (_PACKAGE / "sql").is_dir() else _PACKAGE.parents[1]

SQL_DIRECTORY = _HOME / "sql"
MIGRATIONS_DIRECTORY = _HOME / "migrations"
FOLDERS = ("internal", "public", "operators", "views")
"""of sql/, in the order in which they are loaded"""


def sql_files(directory: Path = SQL_DIRECTORY) -> list[Path]:
    """The files of sql/, in the order in which they are loaded."""
    return [path for folder in FOLDERS for path in sorted((directory / folder).glob("*.sql"))]


def digest(directory: Path = SQL_DIRECTORY) -> str:
    """SHA-256 over the names and contents of the files of sql/: the version of the functions."""
    total = hashlib.sha256()
    for path in sql_files(directory):
        for part in (path.relative_to(directory).as_posix().encode(), path.read_bytes()):
            total.update(len(part).to_bytes(8, "big") + part)
    return total.hexdigest()


def migration_ids(directory: Path = MIGRATIONS_DIRECTORY) -> list[str]:
    """The ids of all migrations, oldest first: their file names without the suffix."""
    return sorted(path.stem for path in directory.iterdir() if path.suffix in (".sql", ".py"))
