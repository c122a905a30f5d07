"""`flashsale rehearse`: the night before the drop."""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.text import Text

from flashsale.cli.output import console, json_option, table, text, to_json
from flashsale.database.connection import admin_url, connect, settings
from flashsale.errors import Refusal
from flashsale.webhook_secrets import webhook_secrets

if TYPE_CHECKING:
    from flashsale.rehearsal.run import Progress as Standing
    from flashsale.rehearsal.run import Rehearsal

COUNT = click.IntRange(1, 1_000_000)
PERCENT = click.FloatRange(0, 100)


def _share(name: str, usual: float, says: str) -> Callable[..., Any]:
    return click.option(
        f"--{name}", type=PERCENT, default=usual, show_default=True, metavar="PERCENT", help=says
    )


@click.command()
@click.option("--buyers", type=COUNT, default=10_000, show_default=True, help="Each wants one unit.")
@click.option("--stock", type=COUNT, default=2_000, show_default=True, help="Units there are.")
@click.option(
    "--at-once", type=click.IntRange(1, 10_000), default=64, show_default=True,
    help="Requests under way at any moment.",
)  # fmt: skip
@_share("impatient", 10, "Give the hold back, or cancel the payment; with --lapse, some just leave.")
@_share("duplicated", 20, "Send every request twice at the same moment, and have every webhook come again.")
@_share("failing", 5, "Order, and their payment fails.")
@_share(
    "late", 2, "Their payment fails, and is captured after the rush; with --lapse, after the time to pay."
)
@_share("early", 2, "Their payment is reported before there is an order; of those who can get a unit.")
@click.option(
    "--lapse", type=click.FloatRange(2, 60), metavar="SECONDS",
    help="Let holds and unpaid orders lapse so soon. Concerns the whole shop while the rehearsal lasts.",
)  # fmt: skip
@click.option("--seed", type=click.IntRange(0, 2**32 - 1), default=1, show_default=True,
              help="Another one makes other buyers.")  # fmt: skip
@click.option("--url", help="As in http://127.0.0.1:8000; else FLASHSALE_HOST and FLASHSALE_PORT.")
@click.option(
    "--report", type=click.Path(dir_okay=False, path_type=Path), default=Path("rehearsal.html"),
    show_default=True, help="Where the report goes, one HTML file.",
)  # fmt: skip
@json_option
def rehearse(
    buyers: int,
    stock: int,
    at_once: int,
    lapse: float | None,
    seed: int,
    url: str | None,
    report: Path,
    as_json: bool,
    **shares: float,
) -> None:
    """Sell a throwaway product to a crowd, over HTTP, and prove that the sale went right.

    The server and the database must be up, and be those of the sale: the buyers are clients of the one, and
    the other is asked afterwards whether it all adds up. Other products are left alone. The throwaway product
    stays in the list, withdrawn; its price is in XTS, which is no currency. Exits with 0 only if every check
    held.
    """
    try:
        from flashsale.rehearsal.buyers import Shares
        from flashsale.rehearsal.report import write
        from flashsale.rehearsal.run import Options, rehearse
    except ModuleNotFoundError as missing:
        raise Refusal(
            f"a rehearsal needs {missing.name}, which a shop does not; run: bin/bootstrap rehearse"
        ) from missing
    if (taken := sum(shares[name] for name in ("impatient", "failing", "late"))) > 100:
        raise click.UsageError(f"--impatient, --failing and --late make {taken:g} percent together")
    _check_writable(report)
    options = Options(buyers, stock, at_once, Shares(**shares), lapse, seed)
    target = (url or settings().base_url).rstrip("/")
    with connect("rehearse") as conn, _progress(buyers, hidden=as_json) as show:
        done = rehearse(options, target, admin_url(), conn, webhook_secrets(os.environ), show)
    try:
        write(done, report)
    except OSError as error:
        click.echo(f"Warning: there is no report: {error}", err=True)
    if as_json:
        click.echo(to_json(_data(done, report)))
    else:
        _print(done, report)
    sys.exit(0 if done.held else 1)


def _check_writable(report: Path) -> None:
    """Rather before the sale than after it."""
    if not os.access(report if report.exists() else report.parent, os.W_OK):
        raise Refusal(f"cannot write {report}: there is no such folder, or it is not yours")


@contextmanager
def _progress(buyers: int, *, hidden: bool) -> Iterator[Callable[["Standing"], None]]:
    """A bar on standard error, if that is a terminal."""
    out = Console(stderr=True)
    columns = (
        TextColumn("{task.description:15}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
        TextColumn("{task.fields[units]}"),
    )  # fmt: skip
    with Progress(*columns, console=out, transient=True, disable=hidden or not out.is_terminal) as bar:
        task = bar.add_task("", total=buyers, units="")

        def show(standing: "Standing") -> None:
            units = standing.units
            words = (
                f"{units.paid:,} sold, {units.held + units.awaiting:,} on their way, {units.available:,} left"
                if units
                else ""
            )
            bar.update(task, description=standing.phase, completed=standing.served, units=words)

        yield show


def _print(done: "Rehearsal", report: Path) -> None:
    from flashsale.rehearsal.figures import answers, by_kind
    from flashsale.rehearsal.report import carried, milliseconds, outcomes

    out = console()
    options = done.options
    sold = Text(f"{done.books.paid:,} of {options.stock:,} units sold", "bold")
    out.print(sold.append(f" to {options.buyers:,} buyers in {done.seen.seconds:.1f} s, seed {options.seed}"))
    out.print()
    heads = ["call", "answers", "best second", "p50", "p95", "p99", "slowest", "sent again"]
    rows = [
        [
            str(kind), *(Text(cell, justify="right") for cell in (
                f"{one.count:,}", f"{one.peak:,}",
                *(milliseconds(value) for value in vars(one.latency).values()), f"{one.again:,}",
            )),
        ]
        for kind, one in by_kind(done.seen).items()
    ]  # fmt: skip
    out.print(table(heads, rows))
    out.print()
    out.print(Text("buyers   ").append(", ".join(f"{count:,} {what}" for what, count in outcomes(done))))
    refused = [f"{count:,} {status} {code}" for _, status, code, count in answers(done.seen) if code]
    out.print(Text("refused  ").append(", ".join(refused) or "nothing"))
    out.print()
    width = max(len(check.name) for check in done.checks)
    for check in done.checks:
        line = Text("ok     ", "green") if check.held else Text("wrong  ", "bold red")
        line.append(f"{check.name:{width}}  ").append_text(
            text(check.detail, "dim" if check.held else "bold")
        )
        out.print(line)
    out.print()
    for line in [carried(done), *done.notes]:
        out.print(text(line))
    out.print(text(f"Product {done.product.product_id} stays in the list, withdrawn. Report: {report}"))


def _data(done: "Rehearsal", report: Path) -> dict[str, Any]:
    from flashsale.rehearsal.figures import answers, by_kind, figures
    from flashsale.rehearsal.report import outcomes

    everything = figures(done.seen.calls)
    books = done.books
    return {
        "held": done.held,
        "product_id": done.product.product_id,
        "options": {**vars(done.options), "shares": vars(done.options.shares)},
        "seconds": round(done.seen.seconds, 3),
        "units": {
            "stock": done.options.stock, "sold": books.paid, "awaiting": books.awaiting,
            "held": books.held, "available": books.available,
        },
        "requests": {"count": len(done.seen.calls), "best_second": everything.peak},
        "calls": {
            str(kind): {
                "answers": one.count, "best_second": one.peak, "sent_again": one.again,
                "seconds": vars(one.latency),
            }
            for kind, one in by_kind(done.seen).items()
        },
        "answers": [
            {"call": str(kind), "status": status, "code": code or None, "times": count}
            for kind, status, code, count in answers(done.seen)
        ],
        "buyers": dict(outcomes(done)),
        "refunds_due": len(books.refunds),
        "checks": [vars(check) for check in done.checks],
        "processors": vars(done.load),
        "notes": list(done.notes),
        "report": str(report),
    }  # fmt: skip
