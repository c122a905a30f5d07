"""CPU usage during a rehearsal."""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class CpuUsage:
    """CPU usage of the machine that runs the rehearsal, in CPUs, averaged over its duration."""

    cpus: int
    busy: float
    """of all processes"""
    buyers: float
    """of this process, which simulates the buyers"""


def measure_cpu() -> Callable[[], CpuUsage]:
    """Start a measurement; returns a function that returns the usage since then."""
    wall, busy, own = time.perf_counter(), _busy_seconds(), time.process_time()

    def usage() -> CpuUsage:
        seconds = time.perf_counter() - wall
        return CpuUsage(
            os.cpu_count() or 1, (_busy_seconds() - busy) / seconds, (time.process_time() - own) / seconds
        )

    return usage


def _busy_seconds() -> float:
    """CPU seconds that the machine has spent since it booted (proc(5), /proc/stat)."""
    fields = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]
    user, nice, system, _idle, _iowait, irq, softirq, steal = map(int, fields[:8])
    return (user + nice + system + irq + softirq + steal) / _TICKS
