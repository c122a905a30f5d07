"""What /proc knows of who used the processors, and of memory."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

from flashsale.migrate import ROOT

_TICKS = os.sysconf("SC_CLK_TCK")


def cpu_seconds(pid: int) -> float:
    """Processor time of a process and of all its descendants, those that have ended included."""
    children: dict[int, list[int]] = {}
    ticks: dict[int, int] = {}
    for process, fields in _processes():
        children.setdefault(int(fields[1]), []).append(process)
        ticks[process] = sum(map(int, fields[11:15]))  # utime, stime, and those of children waited for
    found, total = [pid], 0
    while found:
        process = found.pop()
        total += ticks.get(process, 0)
        found += children.get(process, ())
    return total / _TICKS


def busy_seconds() -> float:
    """Processor time that the whole machine has spent on anything at all."""
    fields = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]
    user, nice, system, _idle, _iowait, irq, softirq, steal = map(int, fields[:8])
    return (user + nice + system + irq + softirq + steal) / _TICKS


def run(command: list[str]) -> tuple[str, float]:
    """Run a program in the project's folder: what it printed, and the processor time it used.

    :raises RuntimeError: it failed
    """
    with subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as child:
        assert child.stdout is not None
        printed = child.stdout.read()
        _, status, usage = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode != 0:
        raise RuntimeError(f"{command[0]} failed:\n{printed}")
    return printed, usage.ru_utime + usage.ru_stime


def _processes() -> Iterator[tuple[int, list[str]]]:
    """Each process with the fields of its /proc stat file from the third on (proc(5))."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                yield int(entry.name), (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
