"""`flashsale doctor`: is this fit for a sale?"""

import os
import sys
from collections import Counter
from dataclasses import asdict

import click
from rich.table import Table

from flashsale.cli.output import console, json_option, text, to_json
from flashsale.doctor.diagnosis import Finding, diagnose

_STYLES = {"ok": "green", "warning": "yellow", "wrong": "bold red"}


@click.command()
@json_option
def doctor(as_json: bool) -> None:
    """Check everything a sale depends on, and say what to do about it.

    Secrets, server, clock, durability, settings, migrations, functions, grants, roles, pg_cron, audit. Exits
    with 1 if anything is wrong; a warning does not fail. Changes nothing, and may run while you sell.
    """
    findings = list(diagnose(os.environ))
    count = Counter(finding.status for finding in findings)
    if as_json:
        click.echo(to_json({"ok": not count["wrong"], "findings": [asdict(finding) for finding in findings]}))
    else:
        out = console()
        out.print(_table(findings))
        warnings = f"{count['warning']} warning{'' if count['warning'] == 1 else 's'}"
        if count["wrong"]:
            out.print(text(f"\n{count['wrong']} wrong, {warnings}".lstrip(), "bold red"))
        else:
            out.print(text(f"nothing is wrong, {warnings}", "bold green"))
    sys.exit(1 if count["wrong"] else 0)


def _table(findings: list[Finding]) -> Table:
    made = Table.grid(padding=(0, 2, 0, 0))
    for _ in range(3):
        made.add_column(overflow="fold")
    for finding in findings:
        made.add_row(text(finding.status, _STYLES[finding.status]), finding.check, text(finding.found))
        if finding.remedy:
            made.add_row("", "", text(f"→ {finding.remedy}", "italic"))
    return made
