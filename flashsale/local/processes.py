"""Finding and signalling processes that an earlier run left behind, by /proc."""

import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path


def find_processes(matches: Callable[[Path], bool]) -> list[int]:
    """Ids of all other processes whose /proc directory `matches`; unreadable ones are left out."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                if matches(entry):
                    found.append(int(entry.name))
            except OSError:
                continue
    return sorted(found)


def with_cwd(directory: Path) -> list[int]:
    """Processes whose current directory is `directory`. PostgreSQL's all have their data directory."""
    wanted = str(directory)
    return find_processes(lambda entry: str((entry / "cwd").readlink()) == wanted)


def with_arguments(*arguments: str) -> list[int]:
    """Processes that have every one of `arguments` on their command line."""
    wanted = set(map(os.fsencode, arguments))
    return find_processes(lambda entry: wanted <= set((entry / "cmdline").read_bytes().split(b"\0")))


def stop(find: Callable[[], list[int]], *steps: tuple[int, float]) -> bool:
    """Send each step's signal to the processes that `find` returns and wait up to that many seconds.

    Returns whether all have ended. `find` is called again at every step, because the kernel may have
    reused a process id for an unrelated process.
    """
    for number, timeout in steps:
        for pid in find():
            send_signal(pid, number)
        deadline = time.monotonic() + timeout
        while remaining := find():
            if time.monotonic() > deadline:
                break
            time.sleep(0.05)
        if not remaining:
            return True
    return False


def send_signal(pid: int, number: int) -> None:
    """Signal a process; no error if it has ended or belongs to another user."""
    with suppress(ProcessLookupError, PermissionError):
        os.kill(pid, number)


def send_group_signal(leader: int, number: int = signal.SIGKILL) -> None:
    """Signal a process group; no error if it has ended."""
    with suppress(ProcessLookupError):
        os.killpg(leader, number)
