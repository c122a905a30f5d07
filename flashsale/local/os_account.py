"""The operating-system account that a private PostgreSQL cluster runs as.

PostgreSQL refuses to run as root. The cluster of an ordinary user runs as that user, the cluster of root as
`postgres`. Where `postgres` cannot enter the directory, such as below /root, it runs with one capability
that permits it.
"""

import os
import pwd
import signal
import subprocess
from dataclasses import dataclass
from pathlib import Path

from flashsale.errors import UserError


@dataclass(frozen=True)
class Account:
    """The owner of the cluster's files, and the command prefix that runs a command as that account."""

    uid: int
    gid: int
    prefix: tuple[str, ...] = ()

    def command(self, *words: str | Path, pdeathsig: signal.Signals | None = None) -> list[str]:
        """The command that runs `words` as this account.

        :param pdeathsig: the signal that the command gets when this process dies. It is set after the
            change of account, which clears it.
        """
        return [*self.prefix, *with_pdeathsig(pdeathsig), *map(str, words)]

    def make_private_directory(self, path: Path) -> None:
        """Create `path` with access for this account alone, or check that an existing one is private.

        :raises UserError: it exists, and another account owns it or can enter it
        """
        path.mkdir(mode=0o700, exist_ok=True)
        found = path.lstat()
        if found.st_uid == os.geteuid() != self.uid:
            os.chown(path, self.uid, self.gid, follow_symlinks=False)
            found = path.lstat()
        if path.is_symlink() or found.st_uid != self.uid or found.st_mode & 0o077:
            raise UserError(f"{path} must be a directory that only user id {self.uid} owns and can enter")


def with_pdeathsig(number: signal.Signals | None) -> list[str]:
    """The command prefix (setpriv(1)) that has the kernel send the signal when the parent dies."""
    if number is None:
        return []
    return ["setpriv", "--pdeathsig", number.name.removeprefix("SIG"), "--"]


def account_for(directory: Path, data: Path) -> Account:
    """The account that runs the cluster whose files are (or will be) at `data` inside `directory`."""
    me = os.geteuid()
    owner = data.stat().st_uid if data.exists() else None
    if me != 0:
        if owner not in (None, me) or not os.access(directory, os.R_OK | os.W_OK | os.X_OK):
            raise UserError(
                f"{directory} belongs to another user; set FLASHSALE_DATA_DIR to a directory of your own"
            )
        return Account(me, os.getegid())
    try:
        user = pwd.getpwuid(owner) if owner else pwd.getpwnam("postgres")
    except KeyError:
        raise UserError("PostgreSQL refuses to run as root, and there is no account postgres") from None
    # dac_read_search is the lesser capability; root in a container often has only dac_override to pass on.
    for capability in (None, "dac_read_search", "dac_override"):
        account = Account(user.pw_uid, user.pw_gid, _setpriv(user, capability))
        enter = account.command("sh", "-c", 'cd "$1"', "sh", directory)
        if subprocess.run(enter, cwd="/", capture_output=True, check=False).returncode == 0:
            return account
    raise UserError(
        f"PostgreSQL refuses to run as root, and the account {user.pw_name} cannot enter {directory};"
        " set FLASHSALE_DATA_DIR to a directory that it can enter, such as one below /var/lib"
    )


def _setpriv(user: pwd.struct_passwd, capability: str | None) -> tuple[str, ...]:
    keep = (f"--inh-caps=+{capability}", f"--ambient-caps=+{capability}") if capability else ()
    return ("setpriv", f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups", *keep, "--")
