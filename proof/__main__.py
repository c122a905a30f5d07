"""`make proof`: every campaign at full size, recorded in RESULTS.md.

Each campaign is a pytest of its own, with a cluster of its own. One a core computes, one more waits; those
that measure times run alone, after the others. Names on the command line run only those campaigns and keep
the results of the others.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

from rich.console import Console

from proof.promises import PROMISES, Load
from proof.results import Result, Results, Trial, WholeRun

HERE = Path(__file__).parent
UNKNOWN_SECONDS = 3600
"""of a campaign that has no result yet: it starts first"""


def run(name: str, seed: int, folder: Path, console: Console) -> Result:
    """One campaign, whole."""
    report, log = folder / f"{name}.jsonl", folder / f"{name}.log"
    command = [
        *(sys.executable, "-m", "pytest", str(HERE / f"test_{name}.py"), "-x", "-q"),
        *("--proof-full", "--proof-seed", str(seed), "--proof-report", str(report)),
    ]
    console.print(f"{name}: started")
    started = time.monotonic()
    with log.open("wb") as output:
        passed = subprocess.run(command, cwd=HERE.parent, stdout=output, stderr=output).returncode == 0
    seconds = round(time.monotonic() - started)
    outcome = "survived" if passed else f"FAILED, see {log}"
    console.print(f"{name}: {outcome}, after {seconds} s", style=None if passed else "red")
    trials = (
        [Trial(**json.loads(line)) for line in report.read_text().splitlines()] if report.exists() else []
    )
    return Result(passed, seconds, seed, time.strftime("%Y-%m-%d", time.gmtime()), trials)


def run_all(
    names: Sequence[str], seed: int, folder: Path, console: Console, known: Results
) -> dict[str, Result]:
    """All of `names`, within each kind of load the longest first."""

    def seconds(name: str) -> int:
        return known.promises[name].seconds if name in known.promises else UNKNOWN_SECONDS

    workers = {Load.COMPUTES: os.cpu_count() or 1, Load.WAITS: 1}
    longest_first = sorted(names, key=seconds, reverse=True)
    with ExitStack() as pools:
        lanes = {load: pools.enter_context(ThreadPoolExecutor(count)) for load, count in workers.items()}
        running = {
            name: lanes[PROMISES[name].load].submit(run, name, seed, folder, console)
            for name in longest_first
            if PROMISES[name].load in lanes
        }
    results = {name: future.result() for name, future in running.items()}
    return results | {name: run(name, seed, folder, console) for name in longest_first if name not in results}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m proof", description=__doc__)
    parser.add_argument("campaign", nargs="*", help=f"only these, of {', '.join(PROMISES)}")
    parser.add_argument("--seed", type=int, default=int.from_bytes(os.urandom(4)), help="repeat this run")
    options = parser.parse_args()
    names = options.campaign or list(PROMISES)
    if unknown := set(names).difference(PROMISES):
        parser.error(f"no such campaign: {', '.join(sorted(unknown))}")
    console = Console()
    console.print(f"seed {options.seed}")
    source = HERE / "results.json"
    results = Results.load(source)
    started = time.monotonic()
    found = run_all(names, options.seed, Path(tempfile.mkdtemp(prefix="flashsale-proof-")), console, results)
    results.promises |= found
    if not options.campaign:
        today = time.strftime("%Y-%m-%d", time.gmtime())
        results.whole = WholeRun(round(time.monotonic() - started), options.seed, today)
    results.save(source)
    (HERE / "RESULTS.md").write_text(results.markdown())
    return 0 if all(result.passed for result in found.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
