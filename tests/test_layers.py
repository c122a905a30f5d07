"""No import goes up: a module imports only from its own layer or from lower ones, and never in a circle."""

import ast
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

from tests.support import ROOT

LAYERS = [
    {
        "api.context",
        "api.cross_origin",
        "api.settings",
        "api.static_files",
        "api.telemetry.metrics",
        "api.database.errors",
    },
    {"api.database.schema_version"},
    {"api.problems"},
    {"api.schemas", "api.webhook_signatures", "api.buyer_identity"},
    {"api.providers"},
    {"api.telemetry"},
    {"api.database"},
    {"api.payment_events", "api.stock_feed"},
    {"api.resources", "api.openapi"},
    {"api.shards"},
    {"api.server"},
    {"api.app"},
    {"flashsale.errors", "flashsale.durations"},
    {"flashsale.settings", "flashsale.adyen_events", "flashsale.stripe_events", "flashsale.webhooks"},
    {"flashsale.local"},
    {"flashsale.database"},
    {"flashsale.doctor", "flashsale.refunds", "flashsale.rehearsal"},
    {"flashsale.local.supervisor"},
    {"flashsale"},
    {"docs"},
    {"bench", "tests.support"},
    {"tests"},
    {"proof"},
    {"tests.test_proof"},
]
"""lowest first; a module belongs to the longest prefix of its name"""

RANK = {prefix: rank for rank, layer in enumerate(LAYERS) for prefix in layer}


def layer_of(module: str) -> str:
    return max((prefix for prefix in RANK if f"{module}.".startswith(f"{prefix}.")), key=len, default="")


def modules() -> dict[str, Path]:
    folders = {prefix.split(".")[0] for prefix in RANK}
    paths = [path.relative_to(ROOT) for folder in folders for path in (ROOT / folder).rglob("*.py")]
    return {".".join(path.with_suffix("").parts).removesuffix(".__init__"): ROOT / path for path in paths}


def imports(path: Path, known: dict[str, Path]) -> set[str]:
    """The modules of this project that a file imports, at whatever place."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            submodules = {f"{node.module}.{alias.name}" for alias in node.names} & known.keys()
            found |= submodules or {node.module}
    return found & known.keys()


def test_no_import_goes_up_or_in_a_circle() -> None:
    known = modules()
    graph = {module: imports(path, known) for module, path in known.items()}
    upward = [
        f"{module} imports {imported}"
        for module, found in graph.items()
        for imported in found
        if RANK[layer_of(imported)] > RANK[layer_of(module)]
    ]
    assert upward == []
    TopologicalSorter(graph).prepare()  # raises CycleError


@cache
def exported(path: Path) -> set[str]:
    """The names that a module binds at its top level."""
    names: set[str] = set()
    for node in ast.parse(path.read_text()).body:
        for part in ast.walk(node):
            if isinstance(part, ast.Import | ast.ImportFrom):
                names.update(alias.asname or alias.name.split(".")[0] for alias in part.names)
            elif isinstance(part, ast.Name) and isinstance(part.ctx, ast.Store):
                names.add(part.id)
            elif isinstance(part, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                names.add(part.name)
    return names


def test_every_imported_name_exists() -> None:
    """Code that the suite does not run, such as a benchmark that needs Redis, keeps up with what it uses."""
    known = modules()
    missing = [
        f"{module}: {node.module}.{alias.name}"
        for module, path in known.items()
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ImportFrom) and node.module in known and not node.level
        for alias in node.names
        if f"{node.module}.{alias.name}" not in known and alias.name not in exported(known[node.module])
    ]
    assert missing == []
