"""pgbench: the functions without HTTP, and the bare statements that they are compared with."""

import re
from dataclasses import dataclass
from statistics import mean

from bench.database import NAME, Database
from bench.machine import run
from bench.workloads import Script
from flashsale.local.cluster import find_binary

WARM_UP_SECONDS = 1
"""seconds that are not measured: a connection's first call plans for some 30 ms, under the hot lock"""


@dataclass(frozen=True)
class Throughput:
    """Requests a second (not calls), average seconds of a call, and pgbench's own processor time."""

    per_second: float
    latency: float
    cpu: float


def measure(database: Database, script: Script, seconds: float) -> Throughput:
    """Run a script of bench/pgbench_scripts/ with prepared statements."""
    size = script.batch
    arrays = {
        "nos": range(1, size + 1),
        "products": [1] * size,
        "qtys": [1] * size,
        "keys": ["null"] * size,
    }
    printed, cpu = run(
        [
            str(find_binary("pgbench")),
            "-h", str(database.socket_directory), "-U", script.user, "-n", "-M", "prepared",
            "-c", str(script.clients), "-j", str(min(script.clients, 2)),
            # One second more: pgbench may end before it reports its last.
            "-T", str(WARM_UP_SECONDS + round(seconds) + 1), "-P", "1",
            "-f", f"bench/pgbench_scripts/{script.script}.sql",
            *[f"-D{name}={{{','.join(map(str, values))}}}" for name, values in arrays.items()],
            f"-Dsize={size}",
            NAME,
        ]
    )  # fmt: skip
    seconds_told = re.findall(r"^progress: [\d.]+ s, ([\d.]+) tps, lat ([\d.]+) ms", printed, re.MULTILINE)
    told = seconds_told[WARM_UP_SECONDS : WARM_UP_SECONDS + round(seconds)]
    calls, latency = (mean(map(float, figures)) for figures in zip(*told, strict=True))
    return Throughput(calls * size, latency / 1000, cpu)
