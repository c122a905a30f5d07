"""What /proc knows of processes that an earlier run left behind."""

import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path


def find_processes(matches: Callable[[Path], bool]) -> list[int]:
    """Ids of all other processes whose /proc folder `matches`; one we may not look at never does."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                if matches(entry):
                    found.append(int(entry.name))
            except OSError:
                continue
    return sorted(found)


def working_in(directory: Path) -> list[int]:
    """Processes whose current folder is `directory`: every process of a cluster sits in its data folder."""
    wanted = str(directory)
    return find_processes(lambda entry: str((entry / "cwd").readlink()) == wanted)


def with_arguments(*arguments: str) -> list[int]:
    """Processes that have all of `arguments`, each as a whole, on their command line."""
    wanted = set(map(os.fsencode, arguments))
    return find_processes(lambda entry: wanted <= set((entry / "cmdline").read_bytes().split(b"\0")))


def stop(find: Callable[[], list[int]], *steps: tuple[int, float]) -> bool:
    """Send each step's signal to what `find` finds and wait that many seconds; true once nothing is left.

    `find` is asked again each time: an id that a stranger has taken meanwhile is not signalled.
    """
    for number, patience in steps:
        for pid in find():
            send(pid, number)
        deadline = time.monotonic() + patience
        while left := find():
            if time.monotonic() > deadline:
                break
            time.sleep(0.05)
        if not left:
            return True
    return False


def send(pid: int, number: int) -> None:
    """Signal a process that may be gone already, or be somebody else's."""
    with suppress(ProcessLookupError, PermissionError):
        os.kill(pid, number)


def send_group(leader: int, number: int = signal.SIGKILL) -> None:
    """Signal a whole process group that may be gone already."""
    with suppress(ProcessLookupError):
        os.killpg(leader, number)
