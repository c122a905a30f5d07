"""`make proof`: every promise at full size, a table of what was tried and what survived.

Each file of this folder is run by a pytest of its own, with a cluster of its own. Those that measure
times run alone, after the others, which run two at a time. Names on the command line run only those
promises; RESULTS.md keeps what it says of the others.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from proof.campaign import Row

HERE = Path(__file__).parent
RESULTS = HERE / "RESULTS.md"
LONGEST_FIRST = (
    *("transactions", "model", "mutations", "crash", "sales", "bad_input", "webhook_orders", "interleavings"),
)
ALONE = ("forgery", "stuck_neighbour", "soak")
"""what measures times; nothing else runs beside it"""


@dataclass(frozen=True)
class Outcome:
    promise: str
    passed: bool
    seconds: float
    rows: list[Row]
    log: Path


def promises() -> list[str]:
    """Every file here, the longest first."""
    names = {path.stem.removeprefix("test_") for path in HERE.glob("test_*.py")}
    return [
        *(name for name in LONGEST_FIRST if name in names),
        *sorted(names.difference(LONGEST_FIRST, ALONE)),
        *(name for name in ALONE if name in names),
    ]


def run(promise: str, seed: int, folder: Path) -> Outcome:
    """One promise, whole."""
    report, log = folder / f"{promise}.jsonl", folder / f"{promise}.log"
    command = [
        *(sys.executable, "-m", "pytest", str(HERE / f"test_{promise}.py"), "-x", "-q"),
        *("--proof-full", "--proof-seed", str(seed), "--proof-report", str(report)),
    ]
    started = time.monotonic()
    with log.open("wb") as output:
        code = subprocess.run(command, cwd=HERE.parent, stdout=output, stderr=output).returncode
    lines = report.read_text().splitlines() if report.exists() else []
    rows = [Row(**json.loads(line)) for line in lines]
    return Outcome(promise, code == 0, time.monotonic() - started, rows, log)


def campaign(names: Sequence[str], seed: int, folder: Path, console: Console) -> list[Outcome]:
    """All of `names`; each is told of as it ends, and they come back in the order they were given in."""

    def one(name: str) -> Outcome:
        console.print(f"{name}: begun")
        outcome = run(name, seed, folder)
        word = "survived" if outcome.passed else f"FAILED, see {outcome.log}"
        console.print(
            f"{name}: {word}, after {outcome.seconds:.0f} s", style=None if outcome.passed else "red"
        )
        return outcome

    with ThreadPoolExecutor(min(2, os.cpu_count() or 1)) as pool:
        side_by_side = list(pool.map(one, (name for name in names if name not in ALONE)))
    alone = [one(name) for name in names if name in ALONE]
    return side_by_side + alone


def cells(outcomes: Iterable[Outcome]) -> Iterable[tuple[str, str, str, str]]:
    """promise, tried, survived, seconds: a row for each thing tried, or one for a promise that fell."""
    for outcome in outcomes:
        seconds = f"{outcome.seconds:.0f}"
        for row in outcome.rows:
            yield outcome.promise, row.tried, row.survived, seconds
            seconds = ""
        if not outcome.passed:
            yield outcome.promise, "the rest", "FAILED", seconds


def markdown(outcomes: Sequence[Outcome], seed: int, before: str) -> str:
    """What RESULTS.md says now that it said `before`."""
    lines: dict[str, list[str]] = {promise: [] for promise in promises()}
    for line in before.splitlines():
        promise = line.removeprefix("| ").partition(" |")[0]
        if promise in lines:
            lines[promise].append(line)
    for outcome in outcomes:
        lines[outcome.promise].clear()
    today = time.strftime("%Y-%m-%d", time.gmtime())
    for promise, tried, survived, seconds in cells(outcomes):
        lines[promise].append(f"| {promise} | {tried} | {survived} | {seconds} | {seed} | {today} |")
    return "\n".join(
        [
            "# What was tried to break the promises",
            "",
            "By `make proof`, or `make proof ARGS=soak` for one promise; `SEED=` and a number of the table"
            " make the same choices again.",
            "",
            "| promise | tried | survived | seconds | seed | on |",
            "|---|---|---|--:|--:|---|",
            *(line for promise in promises() for line in lines[promise]),
            "",
        ]
    )


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m proof", description=__doc__)
    parser.add_argument("promise", nargs="*", help=f"only these, of {', '.join(promises())}")
    parser.add_argument("--seed", type=int, default=int.from_bytes(os.urandom(4)), help="replay this run")
    options = parser.parse_args()
    names = options.promise or promises()
    if unknown := set(names).difference(promises()):
        parser.error(f"no such promise: {', '.join(sorted(unknown))}")
    console = Console()
    console.print(f"seed {options.seed}")
    folder = Path(tempfile.mkdtemp(prefix="flashsale-proof-"))
    outcomes = campaign(names, options.seed, folder, console)
    table = Table("promise", "tried", "survived", "s")
    for row in cells(outcomes):
        table.add_row(*row)
    console.print(table)
    before = RESULTS.read_text() if RESULTS.exists() else ""
    RESULTS.write_text(markdown(outcomes, options.seed, before))
    return 0 if all(outcome.passed for outcome in outcomes) else 1


if __name__ == "__main__":
    sys.exit(main())
