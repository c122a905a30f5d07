"""What `bin/bootstrap servers` adds: other versions of PostgreSQL, poolers, etcd, Patroni, nginx,
Prometheus, generators of API clients.

Tests that need one are skipped where it is missing.
"""

import shutil
from pathlib import Path

import pytest

from tests.support import ROOT

FOLDER = ROOT / ".venv/servers"
VERSIONS = ("16", "17", "18")
"""of PostgreSQL, other than the distribution's, which the whole suite runs on"""
NAMES = (
    *(f"postgresql-{version}" for version in VERSIONS),
    *("pgbouncer", "pgpool", "etcd", "patroni", "nginx", "prometheus"),
    *("openapi-typescript", "openapi-python-client", "webhook-signers"),
)
"""of all servers and tools"""


def find(name: str) -> Path | None:
    """The folder of a server or a tool: postgresql-16, pgbouncer, …; None if it is not there."""
    return next((path for path in FOLDER.glob(f"{name}-*")), None)


def needs(*names: str) -> pytest.MarkDecorator:
    missing = [name for name in names if find(name) is None]
    return pytest.mark.skipif(
        bool(missing), reason=f"{' and '.join(missing)} is missing; to add it, run: bin/bootstrap servers"
    )


def versions() -> list:
    """A parameter for each version of PostgreSQL; skipped if it is missing."""
    return [pytest.param(version, marks=needs(f"postgresql-{version}")) for version in VERSIONS]


def programs(version: str, folder: Path) -> Path:
    """The folder of a version's programs, copied to `folder`."""
    return copy(f"postgresql-{version}", folder) / "bin"


def copy(name: str, folder: Path) -> Path:
    """A copy of a server's files: the account of PostgreSQL may be unable to enter the checkout."""
    source = find(name)
    assert source is not None, f"{name} is missing; to add it, run: bin/bootstrap servers"
    return Path(shutil.copytree(source, folder, symlinks=True, dirs_exist_ok=True))
