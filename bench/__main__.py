"""make bench, make bench QUICK=1, make bench ARGS=growth."""

import os
import platform
import time
from datetime import UTC, datetime
from pathlib import Path

import click

from bench import growth, overload, plot, rates, report
from bench.findings import Findings
from flashsale.cluster import find_binary

RESULTS = Path(__file__).parent / "results"
PARTS = ("rates", "growth", "overload")


@click.command()
@click.option("--quick", is_flag=True, help="Within three minutes: the rates, in short rounds.")
@click.argument("parts", nargs=-1, type=click.Choice(PARTS))
def main(quick: bool, parts: tuple[str, ...]) -> None:
    """Measure everything, or only PARTS, and write bench/results/."""
    if quick and parts:
        raise click.UsageError("The quick form has no parts.")
    started = time.monotonic()

    def say(text: str) -> None:
        click.echo(f"{time.monotonic() - started:6.0f} s  {text}", err=True)

    findings: list[Findings] = []
    for part in ("rates",) if quick else parts or PARTS:
        say(f"{part}:")
        if part == "rates":
            findings.append(rates.run(say, quick=quick))
        elif part == "growth":
            findings += growth.run(say)
        else:
            findings.append(overload.run(say))

    name = "quick" if quick else "-".join(parts) or "full"
    RESULTS.mkdir(exist_ok=True)
    title = f"flashsale on {os.cpu_count()} processors, {_postgresql()}, {datetime.now(UTC):%Y-%m-%d}"
    samples = {key: taken for found in findings for key, taken in found.samples.items()}
    (RESULTS / f"{name}.svg").write_text(plot.bars(samples, f"Requests a second: {title}"))
    sections = "\n\n".join(found.text.strip() for found in findings)
    how = " QUICK=1" if quick else f" ARGS='{' '.join(parts)}'" if parts else ""
    text = f"""# {title}

`make bench{how}`: Python {platform.python_version()}, {platform.machine()}; every commit durable;
audit() empty after each measurement. What the rows mean is in [bench/README.md](../README.md).

{report.of_verdicts(verdict for found in findings for verdict in found.verdicts)}

A ratio is the median of the rounds' ratios.

![requests a second]({name}.svg)

CPUs in the tables: how many processors the HTTP server, PostgreSQL and the load generator kept busy, and
others on this machine, who had no business here.

{sections}
"""
    (RESULTS / f"{name}.md").write_text(text)
    click.echo(text)
    say(f"written to {RESULTS}")


def _postgresql() -> str:
    return f"PostgreSQL {find_binary('postgres').parts[-3]}"


if __name__ == "__main__":
    main()
