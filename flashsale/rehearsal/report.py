"""All that came of a rehearsal as one HTML file that needs nothing else: no script, no other file."""

import shlex
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import jinja2
from markupsafe import Markup

from flashsale.cli.output import seconds as span
from flashsale.rehearsal import figures, plots
from flashsale.rehearsal.buyers import Shares
from flashsale.rehearsal.record import CALLS, NO_ANSWER, Kind, Outcome, Units
from flashsale.rehearsal.run import Options, Rehearsal

_PAGE = jinja2.Environment(
    loader=jinja2.FileSystemLoader(Path(__file__).parent),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
ONE_PROCESSOR = 0.9
"""what a single process can take at most, nearly"""


class Picture(NamedTuple):
    """A plot as the page shows it, wide and narrow, with what it says in words."""

    wide: Markup
    narrow: Markup
    says: str


def write(rehearsal: Rehearsal, path: Path) -> None:
    """Write the report.

    :raises OSError:
    """
    path.write_text(html(rehearsal), encoding="utf-8")


def html(rehearsal: Rehearsal) -> str:
    """The report."""
    found = figures.by_kind(rehearsal.seen)
    everything = figures.figures(rehearsal.seen.calls)
    return _PAGE.get_template("report.html").render(
        r=rehearsal,
        seen=rehearsal.seen,
        books=rehearsal.books,
        options=rehearsal.options,
        found=found,
        everything=everything,
        carried=carried(rehearsal),
        command=command(rehearsal.options),
        calls=CALLS,
        paint=plots.PAINT_OF,
        behaviours=behaviours(rehearsal),
        outcomes=outcomes(rehearsal),
        answers=[
            (kind, "no answer" if status == NO_ANSWER else f"{status} {code}", count)
            for kind, status, code, count in figures.answers(rehearsal.seen)
        ],
        moments=_moments(rehearsal.seen.units),
        units=_units(rehearsal),
        rates=_rates(rehearsal),
        latencies=_latencies(found),
        ms=milliseconds,
        span=span,
    )


def milliseconds(seconds: float) -> str:
    """To three digits: 0.82 ms, 4.1 ms, 17 ms, 1,240 ms."""
    value = seconds * 1000
    return f"{value:,.{0 if value >= 10 else 1 if value >= 1 else 2}f} ms"


def carried(rehearsal: Rehearsal) -> str:
    """What this machine can carry, in a sentence or two."""
    everything = figures.figures(rehearsal.seen.calls)
    holds = figures.figures(rehearsal.seen.of(Kind.HOLD))
    load = rehearsal.load
    said = (
        f"In its best second the shop gave {everything.peak:,} answers, {holds.peak:,} in its best for holds,"
        f" to {rehearsal.options.at_once:,} requests at once. Of this machine's {load.processors} processors"
        f" {load.busy:.1f} were at work, {load.buyers:.1f} of that on being the buyers."
    )
    if load.buyers > ONE_PROCESSOR:
        return f"{said} The buyers could not come any faster; the shop can carry more."
    if load.busy < load.processors / 2:
        return f"{said} No processor was short; with more --at-once it may be more."
    return f"{said} Real buyers bring their own: the shop can carry more than this."


def command(options: Options) -> str:
    """What to type for the same rehearsal."""
    words = ["flashsale", "rehearse"]
    words += [f"--buyers={options.buyers}", f"--stock={options.stock}", f"--at-once={options.at_once}"]
    usual = vars(Shares())
    words += [f"--{name}={share:g}" for name, share in vars(options.shares).items() if share != usual[name]]
    words += [f"--lapse={options.lapse:g}"] if options.lapse is not None else []
    return shlex.join([*words, f"--seed={options.seed}"])


def outcomes(rehearsal: Rehearsal) -> list[tuple[str, int]]:
    """What became of the buyers, the most frequent first."""
    counts = Counter(str(purchase.outcome) for purchase in rehearsal.seen.purchases)
    counts[str(Outcome.SOLD_OUT)] += rehearsal.seen.sold_out
    return [(outcome, count) for outcome, count in counts.most_common() if count]


def behaviours(rehearsal: Rehearsal) -> list[tuple[str, str, int, int]]:
    """How buyers meant to behave: name, what they do, how many, and how many of them got a hold."""
    everybody = [*rehearsal.cast.early, *rehearsal.cast.crowd]
    came = Counter(buyer.behaviour for buyer in everybody)
    held = Counter(purchase.buyer.behaviour for purchase in rehearsal.seen.purchases)
    rows = [(one.name, one.does, count, held[one]) for one, count in came.most_common()]
    doubled = sum(buyer.duplicated for buyer in everybody)
    if doubled:
        twice = sum(purchase.buyer.duplicated for purchase in rehearsal.seen.purchases)
        rows.append(("duplicated", "any of the above, every request sent twice at once", doubled, twice))
    return rows


def _moments(units: Sequence[Units], count: int = 12) -> list[Units]:
    """About so many of the samples, evenly spread, with the first and the last."""
    step = max(1, len(units) // count)
    return [*units[:-1:step], units[-1]]


def _picture(draw: object, *arguments: object, says: str) -> Picture:
    wide, narrow = (Markup(draw(*arguments, width)) for width in (plots.WIDE, plots.NARROW))  # noqa: S704
    return Picture(wide, narrow, says)


def _units(rehearsal: Rehearsal) -> Picture:
    units = rehearsal.seen.units
    gone = next((look.at for look in units if look.available == 0), None)
    last = units[-1]
    said = f"Of {rehearsal.options.stock:,} units, " + (
        f"none was left after {gone:.1f} seconds. " if gone is not None else "some were always left. "
    )
    said += f"After {last.at:.1f} seconds {last.paid:,} were paid and {last.available:,} available."
    return _picture(plots.where_the_units_were, rehearsal.seen, says=said)


def _rates(rehearsal: Rehearsal) -> Picture:
    everything = figures.figures(rehearsal.seen.calls)
    said = f"{everything.count:,} answers; {everything.peak:,} in the best second."
    return _picture(plots.answers_a_second, rehearsal.seen, says=said)


def _latencies(found: dict[Kind, figures.Figures]) -> Picture:
    said = "; ".join(
        f"{kind}: half within {milliseconds(one.latency.p50)}, 99 of 100 within"
        f" {milliseconds(one.latency.p99)}, the slowest {milliseconds(one.latency.most)}"
        for kind, one in found.items()
    )
    return _picture(plots.latencies, found, says=f"{said}.")
