"""Processor time and memory of processes, read from /proc."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

from bench import ROOT

_TICKS = os.sysconf("SC_CLK_TCK")


def cpu_seconds(pid: int) -> float:
    """Processor time of a process and of all its descendants, those that have ended included."""
    stats = dict(_processes())
    family = [pid, *descendants(pid)]
    # utime, stime, and those of children waited for
    return sum(sum(map(int, stats[process][11:15])) for process in family if process in stats) / _TICKS


def run_time(pid: int) -> float:
    """Processor time of one process without its descendants: exact, where cpu_seconds() counts in ticks."""
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1e9


def descendants(pid: int) -> list[int]:
    """The process's children and theirs, oldest first among siblings."""
    children: dict[int, list[int]] = {}
    for process, fields in sorted(_processes()):
        children.setdefault(int(fields[1]), []).append(process)
    found, family = [pid], []
    while found:
        family += (born := children.get(found.pop(0), []))
        found += born
    return family


def own_and_resident(pid: int) -> tuple[int, int] | None:
    """Bytes of memory that is the process's own (anonymous), and of all it has; None if it has ended."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    except (FileNotFoundError, ProcessLookupError):
        return None
    kilobytes = {name: int(figure.split()[0]) for name, _, figure in (line.partition(":") for line in lines)}
    return (kilobytes["Pss_Anon"] + kilobytes["SwapPss"]) * 1024, kilobytes["Rss"] * 1024


def busy_seconds() -> float:
    """Processor time that all processes of the machine have used."""
    fields = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]
    user, nice, system, _idle, _iowait, irq, softirq, steal = map(int, fields[:8])
    return (user + nice + system + irq + softirq + steal) / _TICKS


def run(command: list[str]) -> tuple[str, float]:
    """Run a program in the project's folder; returns its output and its processor time.

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
