"""Which operating-system account a private PostgreSQL cluster runs as.

PostgreSQL refuses to run as root. An ordinary user's cluster simply runs as that user. Root's runs as
`postgres`; in a folder only root can enter, such as one under /root, with the one capability that lets it in.
"""

import os
import pwd
import signal
import subprocess
from dataclasses import dataclass
from pathlib import Path

from flashsale.errors import Refusal


@dataclass(frozen=True)
class Account:
    """Who owns the cluster's files, and the words that go before a command to run it as that account."""

    uid: int
    gid: int
    prefix: tuple[str, ...] = ()

    def command(self, *words: str | Path, die_with_parent: signal.Signals | None = None) -> list[str]:
        """The command that runs `words` as this account.

        `die_with_parent` is a signal the command gets when this process dies, however it dies. It is set
        after the change of account, which clears it.
        """
        return [*self.prefix, *guard(die_with_parent), *map(str, words)]

    def make_private_directory(self, path: Path) -> None:
        """Create `path` for this account alone, or check that it is so already."""
        path.mkdir(mode=0o700, exist_ok=True)
        found = path.lstat()
        if found.st_uid == os.geteuid() != self.uid:
            os.chown(path, self.uid, self.gid, follow_symlinks=False)
            found = path.lstat()
        if path.is_symlink() or found.st_uid != self.uid or found.st_mode & 0o077:
            raise Refusal(f"{path} is not a folder of user id {self.uid} that nobody else can enter")


def guard(die_with_parent: signal.Signals | None) -> list[str]:
    """The words before a command that has the kernel send it this signal when its parent dies."""
    if die_with_parent is None:
        return []
    return ["setpriv", "--pdeathsig", die_with_parent.name.removeprefix("SIG"), "--"]


def account_for(directory: Path, data: Path) -> Account:
    """The account that runs the cluster whose files are (or will be) at `data` inside `directory`."""
    me = os.geteuid()
    owner = data.stat().st_uid if data.exists() else None
    if me != 0:
        if owner not in (None, me) or not os.access(directory, os.R_OK | os.W_OK | os.X_OK):
            raise Refusal(
                f"{directory} belongs to another user; set FLASHSALE_DATA_DIR to a folder of your own"
            )
        return Account(me, os.getegid())
    try:
        user = pwd.getpwuid(owner) if owner else pwd.getpwnam("postgres")
    except KeyError:
        raise Refusal("PostgreSQL refuses to run as root, and there is no account postgres") from None
    # Reading past permissions is the lesser right; a container's root often has only the greater one to give.
    for capability in (None, "dac_read_search", "dac_override"):
        account = Account(user.pw_uid, user.pw_gid, _become(user, capability))
        enter = account.command("sh", "-c", 'cd "$1"', "sh", directory)
        if subprocess.run(enter, cwd="/", capture_output=True, check=False).returncode == 0:
            return account
    raise Refusal(
        f"PostgreSQL refuses to run as root, and the account {user.pw_name} cannot reach {directory};"
        " set FLASHSALE_DATA_DIR to a folder that it can, such as one under /var/lib"
    )


def _become(user: pwd.struct_passwd, capability: str | None) -> tuple[str, ...]:
    keep = (f"--inh-caps=+{capability}", f"--ambient-caps=+{capability}") if capability else ()
    return ("setpriv", f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups", *keep, "--")
