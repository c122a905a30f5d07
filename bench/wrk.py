"""wrk: as many requests as the server takes, on connections that each wait for their answer."""

import json
from dataclasses import dataclass

from bench.machine import run

CONNECTIONS = 64


@dataclass(frozen=True)
class Answers:
    """What came back. Times are in seconds; `cpu` is what the load generator used."""

    per_second: float
    count: int
    refused: int
    p50: float
    p99: float
    cpu: float


class Broken(Exception):
    """The load was not served as it should be: nothing was measured."""


def load(
    url: str, script: str, arguments: tuple[str, ...], seconds: float, connections: int = CONNECTIONS
) -> Answers:
    """Run a script of bench/load/ against a server.

    :raises Broken: connections broke or requests were not answered in time
    """
    printed, cpu = run(
        [
            "wrk", "-t1", f"-c{connections}", f"-d{round(seconds)}s", "-s", f"bench/load/{script}.lua", url,
            "--", *arguments,
        ]
    )  # fmt: skip
    said = [line.removeprefix("RESULT ") for line in printed.splitlines() if line.startswith("RESULT ")]
    if not said:
        raise Broken(f"wrk told nothing about {script}:\n{printed}")
    result = json.loads(said[0])
    if result["broken"]:
        raise Broken(f"{result['broken']} requests of {script} broke:\n{printed}")
    took = result["microseconds"] / 1e6
    return Answers(
        per_second=result["requests"] / took,
        count=result["requests"],
        refused=result["refused"],
        p50=result["p50"] / 1e6,
        p99=result["p99"] / 1e6,
        cpu=cpu,
    )
