"""make bench, make bench QUICK=1, make bench ARGS=growth."""

import os
import platform
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import click

from bench import call_size, growth, overload, plot, rates, report
from bench.section import Say, Section
from flashsale.local.cluster import find_binary

RESULTS = Path(__file__).parent / "results"
PARTS = ("rates", "call_size", "growth", "overload")


@click.command()
@click.option("--quick", is_flag=True, help="Within five minutes: the rates, in short rounds.")
@click.argument("parts", nargs=-1, type=click.Choice(PARTS))
def main(quick: bool, parts: tuple[str, ...]) -> None:
    """Measure everything, or only PARTS, each into a file of its own in bench/results/."""
    if quick and parts:
        raise click.UsageError("The quick form has no parts.")
    started = time.monotonic()

    def say(text: str) -> None:
        click.echo(f"{time.monotonic() - started:6.0f} s  {text}", err=True)

    if quick:
        click.echo(_write("quick", " QUICK=1", [rates.run(say, quick=True)]))
    for part in () if quick else parts or PARTS:
        say(f"{part}:")
        click.echo(_write(part, f" ARGS={part}", _run(part, say)))
    say(f"written to {RESULTS}")


def _run(part: str, say: Say) -> list[Section]:
    if part == "rates":
        return [rates.run(say)]
    if part == "call_size":
        return [call_size.run(say)]
    if part == "growth":
        return growth.run(say)
    return [overload.run(say)]


def _write(name: str, how: str, sections: Sequence[Section]) -> str:
    """Write the report of one part, as soon as it has been measured."""
    RESULTS.mkdir(exist_ok=True)
    title = f"flashsale on {os.cpu_count()} processors, {_postgresql()}, {datetime.now(UTC):%Y-%m-%d}"
    samples = {key: taken for section in sections for key, taken in section.samples.items()}
    costs = {function: by_size for section in sections for function, by_size in section.costs.items()}
    if costs:
        drawn = "microseconds a request, by requests in a call"
        picture = plot.curves(costs, f"{drawn.capitalize()}: {title}")
    else:
        drawn = "requests a second"
        picture = plot.bars(samples, f"{drawn.capitalize()}: {title}")
    (RESULTS / f"{name}.svg").write_text(picture)
    texts = "\n\n".join(section.text.strip() for section in sections)
    text = f"""# {title}

`make bench{how}`: Python {platform.python_version()}, {platform.machine()}; every commit durable;
audit() empty after each measurement. What the rows mean is in [bench/README.md](../README.md).

{report.of_verdicts(verdict for section in sections for verdict in section.verdicts)}

A ratio is the median of the rounds' ratios.

![{drawn}]({name}.svg)

{texts}
"""
    (RESULTS / f"{name}.md").write_text(text)
    return text


def _postgresql() -> str:
    return f"PostgreSQL {find_binary('postgres').parts[-3]}"


if __name__ == "__main__":
    main()
