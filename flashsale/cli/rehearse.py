"""`flashsale rehearse`: a test sale before the real one."""

import os
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as ProgressBar
from rich.text import Text

from flashsale.cli.output import console, json_option, table, text, to_json
from flashsale.cli.types import DURATION
from flashsale.database.connection import admin_url, connect
from flashsale.errors import UserError
from flashsale.settings import Settings
from flashsale.webhooks import webhook_secrets

if TYPE_CHECKING:
    from flashsale.rehearsal.run import Progress, Rehearsal

COUNT = click.IntRange(1, 1_000_000)


class _Percent(click.FloatRange):
    """A number from 0 to 100, with or without a percent sign."""

    name = "percent"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if isinstance(value, str):
            value = value.removesuffix("%")
        return float(super().convert(value, param, ctx))


class _Start(click.ParamType[timedelta]):
    """A duration from 2 to 300 seconds."""

    name = "duration"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> timedelta:
        duration = DURATION.convert(value, param, ctx)
        if not MIN_START <= duration <= MAX_START:
            self.fail(f"{value!r} is not from 2s to 5min", param, ctx)
        return duration


PERCENT = _Percent(0, 100)
MIN_START, MAX_START = timedelta(seconds=2), timedelta(minutes=5)
"""buyers come half a second before the start, once client and server are ready"""


def _share(name: str, default: float, help: str) -> Callable[..., Any]:
    return click.option(
        f"--{name}", type=PERCENT, default=default, show_default=True, metavar="PERCENT", help=help
    )


@click.command()
@click.option("--buyers", type=COUNT, default=10_000, show_default=True, help="Buyers, of one unit each.")
@click.option("--stock", type=COUNT, default=2_000, show_default=True, help="Units in stock.")
@click.option(
    "--concurrency", type=click.IntRange(1, 10_000), default=64, show_default=True,
    help="Concurrent requests.",
)  # fmt: skip
@_share("impatient", 10, "Release the hold, or cancel the payment; with --lapse-after, some just leave.")
@_share("duplicated", 20, "Send every request twice concurrently, and every webhook again at the end.")
@_share("failing", 5, "Order; the payment fails.")
@_share("declined", 5, "Order; the card is declined twice, then accepted.")
@_share("twice", 1, "Order; the payment is captured twice, and the second is a refund due.")
@_share("late", 2, "Order; the payment is captured after it failed, or with --lapse-after, when overdue.")
@_share("early", 2, "The webhook arrives before the order; of the buyers who can get a unit.")
@_share("cancelled", 2, "The shop cancels the order after the rush; of the paid orders.")
@click.option("--limit", type=COUNT, help="Units that one buyer can have.")
@click.option(
    "--starts-in", type=_Start(), metavar="DURATION",
    help="The sale starts after this time, such as 5s; buyers and bots come before.",
)  # fmt: skip
@_share("bots", 0, "Request holds in parallel, many for one account, until the rush is over.")
@click.option(
    "--lapse-after", type=click.FloatRange(2, 60), metavar="SECONDS",
    help="Set hold time and payment window, of all products, for the duration of the rehearsal.",
)  # fmt: skip
@click.option("--seed", type=click.IntRange(0, 2**32 - 1), default=1, show_default=True,
              help="Seed of the generated buyers.")  # fmt: skip
@click.option(
    "--keep", is_flag=True, help="Keep the product, withdrawn from sale, with all that was sold of it."
)
@click.option("--url", help="URL of the server. [default: from FLASHSALE_HOST and FLASHSALE_PORT]")
@click.option(
    "--report", type=click.Path(dir_okay=False, path_type=Path), default=Path("rehearsal.html"),
    show_default=True, help="The HTML report.",
)  # fmt: skip
@json_option
def rehearse(
    buyers: int,
    stock: int,
    concurrency: int,
    limit: int | None,
    starts_in: timedelta | None,
    lapse_after: float | None,
    seed: int,
    keep: bool,
    url: str | None,
    report: Path,
    as_json: bool,
    **shares: float,
) -> None:
    """Sell a throwaway product to simulated buyers over HTTP, and check the result.

    Server and database must be running, and be those of the real sale. The buyers are clients of the server;
    afterwards their observations are compared with the database. Other products are not changed. The
    throwaway product is a test product: it is not listed and left out of metrics, views and the events of
    other services. At the end it is removed with all that was sold of it. Exits with 1 if a check failed.
    """
    try:
        from flashsale.rehearsal.buyers import Shares
        from flashsale.rehearsal.report import write
        from flashsale.rehearsal.run import Options, rehearse
    except ModuleNotFoundError as error:
        raise UserError(
            f"the package {error.name} is not installed; run: pip install 'flashsale[rehearse]',"
            " or in a checkout: bin/bootstrap rehearse"
        ) from error
    names = ("impatient", "failing", "declined", "twice", "late")
    if (total := sum(shares[name] for name in names)) > 100:
        raise click.UsageError(f"{', '.join(f'--{name}' for name in names)} add up to {total:g} percent")
    _check_writable(report)
    options = Options(buyers, stock, concurrency, Shares(**shares), lapse_after, seed, limit, starts_in, keep)
    target = (url or Settings.from_environment().base_url).rstrip("/")
    with connect("rehearse") as conn, _progress(buyers, shares["bots"], hidden=as_json) as show:
        rehearsal = rehearse(options, target, admin_url(), conn, webhook_secrets(), show)
    try:
        write(rehearsal, report)
    except OSError as error:
        click.echo(f"Warning: the report was not written: {error}", err=True)
    if as_json:
        click.echo(to_json(_data(rehearsal, report)))
    else:
        _print(rehearsal, report)
    sys.exit(0 if rehearsal.passed else 1)


def _check_writable(report: Path) -> None:
    """Fail before the sale rather than after it."""
    if not os.access(report if report.exists() else report.parent, os.W_OK):
        raise UserError(f"cannot write {report}: its directory does not exist or is not writable")


@contextmanager
def _progress(buyers: int, bots: float, *, hidden: bool) -> Iterator[Callable[["Progress"], None]]:
    """A progress bar on standard error, if that is a terminal."""
    out = Console(stderr=True)
    columns = (
        TextColumn("{task.description:17}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
        TextColumn("{task.fields[stock]}"),
    )  # fmt: skip
    hidden = hidden or not out.is_terminal
    with ProgressBar(*columns, console=out, transient=True, disable=hidden) as bar:
        task = bar.add_task("", total=buyers - round(buyers * bots / 100), stock="")

        def show(progress: "Progress") -> None:
            levels = progress.stock_levels
            stock = (
                f"{levels.paid:,} sold, {levels.held + levels.awaiting:,} held or ordered,"
                f" {levels.available:,} available"
            )
            bar.update(task, description=progress.phase, completed=progress.served, stock=stock)

        yield show


def _print(rehearsal: "Rehearsal", report: Path) -> None:
    from flashsale.rehearsal.report import bots, capacity, milliseconds, opening, outcomes
    from flashsale.rehearsal.statistics import by_operation, responses

    out = console()
    options = rehearsal.options
    sold = f"{rehearsal.state.paid:,} of {options.stock:,} units sold"
    summary = f" to {options.buyers:,} buyers in {rehearsal.observed.seconds:.1f} s, seed {options.seed}"
    out.print(Text().append(sold, "bold").append(summary))
    out.print()
    columns = ["operation", "responses", "peak/s", "p50", "p95", "p99", "max", "retries"]
    rows = [
        [
            str(operation), *(Text(cell, justify="right") for cell in (
                f"{found.count:,}", f"{found.peak:,}",
                *(milliseconds(value) for value in vars(found.latency).values()), f"{found.retries:,}",
            )),
        ]
        for operation, found in by_operation(rehearsal.observed).items()
    ]  # fmt: skip
    out.print(table(columns, rows))
    out.print()
    out.print(Text("buyers   ").append(", ".join(f"{n:,} {outcome}" for outcome, n in outcomes(rehearsal))))
    refusals = Counter[str]()
    for _, status, code, count in responses(rehearsal.observed):
        if code:
            refusals[f"{status} {code}"] += count
    refused = ", ".join(f"{count:,} {refusal}" for refusal, count in refusals.most_common())
    out.print(Text("refused  ").append(refused or "none"))
    for label, sentence in (("start", opening(rehearsal)), ("bots", bots(rehearsal))):
        if sentence:
            out.print(Text(f"{label:9}").append(sentence))
    out.print()
    width = max(len(check.name) for check in rehearsal.checks)
    for check in rehearsal.checks:
        line = Text("ok      ", "green") if check.passed else Text("failed  ", "bold red")
        line.append(f"{check.name:{width}}  ")
        line.append_text(text(check.detail, "dim" if check.passed else "bold"))
        out.print(line)
    out.print()
    for sentence in [capacity(rehearsal), *rehearsal.notes]:
        out.print(text(sentence))
    product_id = rehearsal.product.product_id
    if options.keep:
        kept = f"is kept, withdrawn; remove it with: flashsale product forget-tests {product_id}"
    else:
        kept = "and all that was sold of it are removed"
    out.print(text(f"Test product {product_id} {kept}. Report: {report}"))


def _data(rehearsal: "Rehearsal", report: Path) -> dict[str, Any]:
    from flashsale.rehearsal.report import bot_figures, opening_figures, outcomes
    from flashsale.rehearsal.statistics import by_operation, responses, summarize

    state = rehearsal.state
    calls = rehearsal.observed.calls
    options = vars(rehearsal.options) | {
        "shares": vars(rehearsal.options.shares),
        "starts_in": rehearsal.options.starts_in and rehearsal.options.starts_in.total_seconds(),
    }
    return {
        "passed": rehearsal.passed,
        "product_id": rehearsal.product.product_id,
        "options": options,
        "seconds": round(rehearsal.observed.seconds, 3),
        "units": {
            "stock": rehearsal.options.stock, "sold": state.paid, "awaiting": state.awaiting,
            "held": state.held, "available": state.available,
        },
        "requests": {"count": len(calls), "peak_per_second": summarize(calls).peak},
        "operations": {
            str(operation): {
                "responses": found.count, "peak_per_second": found.peak, "retries": found.retries,
                "latency_seconds": vars(found.latency),
            }
            for operation, found in by_operation(rehearsal.observed).items()
        },
        "responses": [
            {"operation": str(operation), "status": status, "code": code or None, "count": count}
            for operation, status, code, count in responses(rehearsal.observed)
        ],
        "outcomes": dict(outcomes(rehearsal)),
        "opening": opening_figures(rehearsal),
        "bots": bot_figures(rehearsal),
        "refunds": {"made": len(state.refunded), "due": len(state.due)},
        "checks": [vars(check) for check in rehearsal.checks],
        "cpu": vars(rehearsal.cpu),
        "notes": list(rehearsal.notes),
        "report": str(report),
    }  # fmt: skip
