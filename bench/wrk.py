"""wrk, a closed loop: each connection sends its next request when it has the response to the last."""

import json
from dataclasses import dataclass

from bench.machine import run

CONNECTIONS = 64


@dataclass(frozen=True)
class LoadResult:
    """Times are in seconds; `cpu` is the processor time of the load generator."""

    per_second: float
    count: int
    refused: int
    p50: float
    p99: float
    cpu: float


class BenchmarkFailed(Exception):
    """Responses were not as expected: nothing was measured."""


def load(
    url: str, script: str, arguments: tuple[str, ...], seconds: float, connections: int = CONNECTIONS
) -> LoadResult:
    """Run a script of bench/load/ against a server.

    :raises BenchmarkFailed: connections broke or responses were late
    """
    printed, cpu = run(
        [
            "wrk", "-t1", f"-c{connections}", f"-d{round(seconds)}s", "-s", f"bench/load/{script}.lua", url,
            "--", *arguments,
        ]
    )  # fmt: skip
    said = [line.removeprefix("RESULT ") for line in printed.splitlines() if line.startswith("RESULT ")]
    if not said:
        raise BenchmarkFailed(f"wrk printed no result of {script}:\n{printed}")
    result = json.loads(said[0])
    if result["broken"]:
        raise BenchmarkFailed(f"{result['broken']} requests of {script} broke:\n{printed}")
    took = result["microseconds"] / 1e6
    return LoadResult(
        per_second=result["requests"] / took,
        count=result["requests"],
        refused=result["refused"],
        p50=result["p50"] / 1e6,
        p99=result["p99"] / 1e6,
        cpu=cpu,
    )
