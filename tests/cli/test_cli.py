"""All commands: help, completion, one-line errors, colour on terminals only."""

import os
import pty
import select
import subprocess
import sys
import tomllib
from contextlib import suppress

import click
import pytest

from flashsale.cli.main import main
from tests.support import ROOT
from tests.support.sale_steps import create_product

PROGRAM = str(ROOT / ".venv/bin/flashsale")
COMMANDS = [
    *([name] for name in main.commands),
    *([name, inner] for name, group in main.commands.items() if isinstance(group, click.Group)
      for inner in group.commands),
]  # fmt: skip


def in_terminal(*arguments: str, **environment: str) -> str:
    """The output of the command on a pseudo-terminal."""
    ours, theirs = pty.openpty()
    inherited = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "FORCE_COLOR")}
    child = subprocess.Popen(
        [sys.executable, "-m", "flashsale", *arguments],
        cwd=ROOT,
        env=inherited | {"TERM": "xterm-256color", "COLUMNS": "100"} | environment,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    shown = b""
    with suppress(OSError):  # EIO: the last process has closed the terminal
        while select.select([ours], [], [], 30)[0] and (more := os.read(ours, 65536)):
            shown += more
    os.close(ours)
    child.wait(10)
    return shown.decode()


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_has_help(flashsale, command):
    result = flashsale(*command, "--help")
    assert result.exit_code == 0
    assert result.stdout.startswith("Usage: main ") or "Usage:" in result.stdout
    assert len(result.stdout.splitlines()) > 4


def test_it_prints_its_version(flashsale):
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert version in flashsale("--version").stdout


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_it_prints_a_completion_script(flashsale, shell):
    result = flashsale("completion", shell)
    assert result.exit_code == 0
    assert f"_FLASHSALE_COMPLETE={shell}_complete" in result.stdout


def test_a_shell_completes_commands_options_and_choices():
    def complete(*words: str) -> list[str]:
        script = (
            'eval "$(.venv/bin/flashsale completion bash)"; '
            f"COMP_WORDS=({' '.join(words)} ''); COMP_CWORD={len(words)}; "
            f'_flashsale_completion {PROGRAM}; printf "%s\\n" "${{COMPREPLY[@]}}"'
        )
        done = subprocess.run(["bash", "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
        return done.stdout.split()

    assert {"up", "doctor", "rehearse", "watch", "webhook"} <= set(complete("flashsale"))
    commands = ["create", "forget-tests", "list", "pause", "price", "restock", "resume", "terms"]
    assert complete("flashsale", "product") == commands
    statuses = ["success", "failed", "cancelled", "declined"]
    assert complete("flashsale", "webhook", "send", "--status") == statuses


@pytest.mark.parametrize(
    "arguments",
    [["nonsense"], ["product", "restock", "one", "2"], ["watch", "--interval", "0"], ["--nonsense"]],
)
def test_wrong_usage_exits_with_2(flashsale, arguments):
    assert flashsale(*arguments).exit_code == 2


QUERIES = [
    *["product list", "audit", "events", "watch --once", "cron status"],
    *["webhook send --early", "rehearse", "psql"],
]


@pytest.mark.parametrize("command", [command for command in QUERIES if command != "psql"])
@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("postgresql://nobody:secret@127.0.0.1:1/none?connect_timeout=2", "cannot connect to the database: "),
        ("nobody:secret@somewhere", "FLASHSALE_DATABASE_URL is not a libpq connection string or URI"),
    ],
    ids=["unreachable", "invalid"],
)
def test_without_a_database_the_error_is_one_line(flashsale, command, url, message):
    result = flashsale(*command.split(), FLASHSALE_DATABASE_URL=url)
    assert result.exit_code == 1
    assert result.stderr.startswith(f"Error: {message}")
    assert result.stderr.count("\n") == 1
    assert "secret" not in result.output


@pytest.mark.parametrize("command", QUERIES)
def test_without_a_cluster_the_error_names_flashsale_up(flashsale, command, tmp_path):
    result = flashsale(*command.split(), FLASHSALE_DATABASE_URL="", FLASHSALE_DATA_DIR=str(tmp_path))
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == (
        "Error: set FLASHSALE_DATABASE_URL, or start the private cluster with: flashsale up\n"
    )


@pytest.mark.parametrize("command", ["product list", "audit", "events", "watch --once", "cron status"])
def test_on_an_empty_database_the_error_names_flashsale_migrate(flashsale, command, empty_database):
    result = flashsale(*command.split(), FLASHSALE_DATABASE_URL=empty_database)
    assert result.exit_code == 1
    assert result.stderr.endswith("run: flashsale migrate\n")
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize("command", ["product list", "audit", "events", "watch --once", "cron status"])
def test_without_rights_the_error_names_flashsale_ops(flashsale, command, cluster, db):
    url = cluster.url("flashsale_app", db.info.dbname)
    result = flashsale(*command.split(), FLASHSALE_DATABASE_URL=url)
    assert result.exit_code == 1
    assert "use a role that is a member of flashsale_ops" in result.stderr
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize("command", ["product list", "audit", "events", "watch --once"])
def test_a_member_of_flashsale_ops_has_the_rights(flashsale, command, cluster, db):
    db.execute("create role flashsale_test_operator login in role flashsale_ops")
    try:
        url = cluster.url("flashsale_test_operator", db.info.dbname)
        assert flashsale(*command.split(), FLASHSALE_DATABASE_URL=url).exit_code == 0
    finally:
        db.execute("drop role flashsale_test_operator")


def test_output_has_colour_on_a_terminal_only(flashsale, db, database_url):
    create_product(db, stock=0)
    assert "\x1b[1;31m" in in_terminal("watch", "--once", FLASHSALE_DATABASE_URL=database_url)
    assert "\x1b[1;31m" not in in_terminal(
        "watch", "--once", FLASHSALE_DATABASE_URL=database_url, NO_COLOR="1"
    )
    for command in ("watch --once", "doctor", "product list", "events"):
        assert "\x1b" not in flashsale(*command.split()).output


def test_control_characters_in_names_are_escaped(db, database_url):
    create_product(db, name="\x1b[2Jgone\n[red]")
    shown = in_terminal("product", "list", FLASHSALE_DATABASE_URL=database_url)
    assert "\\x1b[2Jgone\\n[red]" in shown
    assert "\x1b[2J" not in shown
