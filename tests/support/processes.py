"""Processes that this one has started."""

import os
from pathlib import Path

from flashsale.local import processes
from tests.support.waiting import wait_until


def children(parent: int) -> list[int]:
    return processes.find_processes(
        lambda entry: int((entry / "stat").read_text().rpartition(")")[2].split()[1]) == parent
    )


def gunicorn() -> tuple[int, list[int]]:
    """The master that this process has started, and its workers."""
    (master,) = set(children(os.getpid())).intersection(processes.with_arguments("gunicorn"))
    wait_until(lambda: children(master), "gunicorn has a worker")
    return master, children(master)


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False
