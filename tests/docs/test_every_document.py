"""Checks of every document: every example is run by a test, every link has a target, every command exists."""

import re
from pathlib import Path

import click
import pytest

from flashsale.cli.main import main
from tests.docs.documents import PATHS, blocks, examples
from tests.support import ROOT

TYPED = {"README.md", "databases.md", "operations.md", "providers.md", "services.md", "shards.md"}
"""the documents whose examples a test runs"""


def prose(path: Path) -> str:
    """The text without fenced blocks."""
    return re.sub(r"^```.*?^```$", "", path.read_text(), flags=re.DOTALL | re.MULTILINE)


def anchors(path: Path) -> set[str]:
    """The anchors that code hosts give to headings."""
    headings = re.findall(r"^#+ (.+)$", prose(path), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_every_example_is_typed() -> None:
    assert {path.name for path in PATHS if examples(path)} == TYPED


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.name)
def test_every_block_says_what_it_is(path: Path) -> None:
    assert {block.kind for block in blocks(path)} <= {
        "console",
        "sql",
        "python",
        "text",
        "sh",
        "yaml",
        "ini",
        "json",
        "none",
    }
    assert path.read_text().count("\n```") == 2 * len(blocks(path))


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.name)
def test_every_link_leads_somewhere(path: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(path)):
        name, _, anchor = target.partition("#")
        if not name.startswith("https://"):
            file = (path.parent / name).resolve() if name else path
            assert file.exists(), target
            assert not anchor or anchor in anchors(file), target


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.name)
def test_every_command_of_make_and_flashsale_exists(path: Path) -> None:
    code = "\n".join([*re.findall(r"`([^`\n]+)`", prose(path)), *(block.text for block in blocks(path))])
    targets = re.findall(r"^(\w+):.*## ", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert {*re.findall(r"(?:^|; )make (\w+)", code, re.MULTILINE)} <= {*targets}
    # A database, a publication or a subscription may have that name.
    invocation = r"(?:^|[ /])(?<!database )(?<!publication )(?<!subscription )flashsale ((?:[\w-]+ ?)+)"
    for words in re.findall(invocation, code, re.MULTILINE):
        command: click.Command | None = main
        for word in words.split():
            if not isinstance(command, click.Group):
                break
            command = command.commands.get(word)
            assert command, f"flashsale {words}"


def test_contributing_says_what_ci_runs() -> None:
    (sentence,) = re.findall(r"^CI runs (.+?)\.$", (ROOT / "CONTRIBUTING.md").read_text(), re.MULTILINE)
    script = (ROOT / ".ci/run").read_text()
    assert re.findall(r"`(.+?)`", sentence) == re.findall(r"^(?:make|bin/).*$", script, re.MULTILINE)
