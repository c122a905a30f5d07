"""`flashsale doctor`: checks server, schema and settings before a sale."""

import sys
from collections import Counter
from dataclasses import asdict

import click
from rich.table import Table

from flashsale.cli.output import console, json_option, text, to_json
from flashsale.doctor.diagnosis import diagnose
from flashsale.doctor.finding import Finding

_STYLES = {"ok": "green", "warning": "yellow", "failed": "bold red"}


@click.command()
@json_option
def doctor(as_json: bool) -> None:
    """Check everything that a sale depends on, and print the remedy for each problem.

    Secrets, server, clock, durability, settings, terms, migrations, functions, grants, roles, pg_cron, audit.
    Exits with 1 if a check failed; warnings do not count. Read-only, and safe during a sale.
    """
    print_findings(list(diagnose()), as_json=as_json)


def print_findings(findings: list[Finding], *, as_json: bool) -> None:
    """Print what was found, and exit with 1 if a check failed."""
    count = Counter(finding.status for finding in findings)
    if as_json:
        click.echo(
            to_json({"ok": not count["failed"], "findings": [asdict(finding) for finding in findings]})
        )
    else:
        out = console()
        out.print(_table(findings))
        warnings = f"{count['warning']} warning{'' if count['warning'] == 1 else 's'}"
        if count["failed"]:
            out.print(text(f"{count['failed']} failed, {warnings}", "bold red"))
        else:
            out.print(text(f"all checks passed, {warnings}", "bold green"))
    sys.exit(1 if count["failed"] else 0)


def _table(findings: list[Finding]) -> Table:
    table = Table.grid(padding=(0, 2, 0, 0))
    for _ in range(3):
        table.add_column(overflow="fold")
    for finding in findings:
        table.add_row(text(finding.status, _STYLES[finding.status]), finding.check, text(finding.detail))
        if finding.remedy:
            table.add_row("", "", text(f"→ {finding.remedy}", "italic"))
    return table
