"""What the processors had to do while a rehearsal went on."""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Load:
    """The processors of the machine that the rehearsal runs on, over a while."""

    processors: int
    busy: float
    """how many of them were at work on average, on anything"""
    buyers: float
    """how many of them the buyers themselves took: this process"""


def measure() -> Callable[[], Load]:
    """Begin to measure; call what it returns for the load since."""
    wall, busy, own = time.perf_counter(), _busy_seconds(), time.process_time()

    def load() -> Load:
        seconds = time.perf_counter() - wall
        return Load(
            os.cpu_count() or 1, (_busy_seconds() - busy) / seconds, (time.process_time() - own) / seconds
        )

    return load


def _busy_seconds() -> float:
    """Processor time that the whole machine has spent (proc(5), /proc/stat)."""
    fields = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]
    user, nice, system, _idle, _iowait, irq, softirq, steal = map(int, fields[:8])
    return (user + nice + system + irq + softirq + steal) / _TICKS
