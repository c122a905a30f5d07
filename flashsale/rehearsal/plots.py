"""The figures of a rehearsal as pictures: SVG to stand in the report.

Each picture is drawn twice, for a wide page and for a phone. Colours are names of the page's own style, so
that they follow it into the dark; words stay words, in the page's own type.
"""

import io
import re
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator

from flashsale.rehearsal.figures import Figures, rates
from flashsale.rehearsal.record import Kind, Phase, Seen, Units

WIDE, NARROW = 9.6, 4.2
"""inches, at 72 pixels each: the text column of the report, and a phone"""

# Drawn in these, shown in what the report's style has under the same name.
_PAINT = {
    "ink": "#010101",
    "quiet": "#020202",
    "line": "#030303",
    "available": "#040404",
    "held": "#050505",
    "awaiting": "#060606",
    "paid": "#070707",
    "look": "#080808",
    "confirm": "#090909",
    "release": "#0a0a0a",
    "surface": "#0b0b0b",
}
PAINT_OF = {
    Kind.LOOK: "look",
    Kind.HOLD: "held",
    Kind.ORDER: "awaiting",
    Kind.WEBHOOK: "paid",
    Kind.CONFIRM: "confirm",
    Kind.RELEASE: "release",
}
_STYLE: dict[str, Any] = {
    "svg.fonttype": "none",
    "font.size": 11.5,
    "text.color": _PAINT["quiet"],
    "axes.labelcolor": _PAINT["quiet"],
    "axes.edgecolor": _PAINT["line"],
    "axes.facecolor": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.color": _PAINT["line"],
    "grid.linewidth": 0.8,
    "xtick.color": _PAINT["line"],
    "ytick.color": _PAINT["line"],
    "xtick.labelcolor": _PAINT["quiet"],
    "ytick.labelcolor": _PAINT["quiet"],
    "ytick.left": False,
    "figure.facecolor": "none",
    "savefig.facecolor": "none",
    "path.simplify_threshold": 0.3,
}


@mpl.rc_context(_STYLE)
def where_the_units_were(seen: Seen, width: float) -> str:
    """Stacked from below: paid, awaiting payment, held, available."""
    figure, axes = _axes(width, 3.4)
    changes = _changes(seen.units)
    moments = [units.at for units in changes]
    layers = {name: [getattr(units, name) for units in changes] for name in Units._fields[:0:-1]}
    axes.stackplot(
        moments, *layers.values(), colors=[_PAINT[name] for name in layers], step="post", linewidth=0
    )
    axes.set_ylabel("units")
    _seconds(axes, seen)
    axes.set_ylim(0, max(sum(units[1:]) for units in seen.units))
    axes.yaxis.set_major_locator(MaxNLocator(5, integer=True))
    _mark_phases(axes, seen.phases, width)
    return _svg(figure, f"units-{width}")


@mpl.rc_context(_STYLE)
def answers_a_second(seen: Seen, width: float) -> str:
    """Stacked, by kind of call."""
    figure, axes = _axes(width, 2.7)
    seconds = max(call.at + call.seconds for call in seen.calls)
    bins = int(min(max(8, seconds / 0.25), 80 if width == WIDE else 40))
    kinds = [kind for kind in Kind if seen.of(kind)]
    middles = [(n + 0.5) * seconds / bins for n in range(bins)]
    axes.stackplot(
        middles,
        *[rates(seen.of(kind), seconds, bins) for kind in kinds],
        colors=[_PAINT[PAINT_OF[kind]] for kind in kinds],
        step="mid",
        linewidth=0,
    )
    axes.set_ylabel("answers a second")
    _seconds(axes, seen)
    axes.set_ylim(bottom=0)
    axes.yaxis.set_major_locator(MaxNLocator(5, integer=True))
    return _svg(figure, f"rates-{width}")


@mpl.rc_context(_STYLE)
def latencies(found: Mapping[Kind, Figures], width: float) -> str:
    """From the median to the slowest, a row for each kind of call, on a scale of powers of ten."""
    figure, axes = _axes(width, 0.9 + 0.36 * len(found))
    for row, (kind, figures) in enumerate(found.items()):
        colour = _PAINT[PAINT_OF[kind]]
        p50, p95, p99, most = (
            seconds * 1000
            for seconds in (
                figures.latency.p50, figures.latency.p95, figures.latency.p99, figures.latency.most,
            )
        )  # fmt: skip
        axes.plot([p99, most], [row, row], color=colour, linewidth=1.5)
        axes.plot([p95, p99], [row, row], color=colour, linewidth=5, solid_capstyle="butt")
        axes.plot([p50, p95], [row, row], color=colour, linewidth=11, solid_capstyle="butt")
        axes.plot([p50], [row], "|", color=_PAINT["ink"], markersize=15, markeredgewidth=2)
        axes.plot([most], [row], "o", color=colour, markersize=4.5)
    axes.set_xscale("log")
    axes.set_yticks(range(len(found)), [str(kind) for kind in found])
    axes.set_ylim(len(found) - 0.4, -0.6)
    low, high = axes.get_xlim()
    axes.set_xlim(low / 1.1, high * 1.1)
    # On a phone there is room for three words or four.
    close = high / low < (300 if width == WIDE else 20)
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if close else (1,)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g} ms"))
    axes.tick_params(axis="y", labelcolor=_PAINT["ink"])
    axes.grid(False, axis="y")
    axes.minorticks_off()
    return _svg(figure, f"latencies-{width}")


def _changes(units: Sequence[Units]) -> list[Units]:
    """Those that differ from the one before, and the last."""
    return [units[0], *(now for before, now in pairwise(units) if now[1:] != before[1:] or now is units[-1])]


def _axes(width: float, height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.add_subplot()


def _seconds(axes: Axes, seen: Seen) -> None:
    axes.set_xlim(0, max(seen.units[-1].at, 0.1))
    axes.set_xlabel("seconds since the doors opened")
    axes.xaxis.set_major_locator(MaxNLocator(8, steps=[1, 2, 5, 10]))
    axes.grid(False, axis="x")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))


def _mark_phases(axes: Axes, phases: Sequence[Phase], width: float) -> None:
    """A line where each part of the sale begins, with its name where there is room for it."""
    whole = phases[-1].end
    for phase in phases:
        room = (phase.end - phase.begin) / whole * width * 72
        if phase.begin > 0 and room > 4:
            axes.axvline(phase.begin, color=_PAINT["ink"], linewidth=0.8, linestyle=(0, (2, 3)))
        if room > 7.5 * len(phase.name):
            axes.annotate(
                phase.name, (phase.begin, 1), xycoords=("data", "axes fraction"),
                xytext=(4, 4), textcoords="offset points", annotation_clip=False,
            )  # fmt: skip


def _svg(figure: Figure, salt: str) -> str:
    written = io.StringIO()
    with mpl.rc_context({"svg.hashsalt": salt}):
        figure.savefig(written, format="svg", metadata={"Date": None, "Creator": None})
    svg = written.getvalue()
    for pattern, replacement in _TIDYING:
        svg = re.sub(pattern, replacement, svg, flags=re.DOTALL)
    svg = re.sub(r"\d+\.\d\d+", lambda number: f"{float(number[0]):.1f}", svg)
    for name, colour in _PAINT.items():
        svg = svg.replace(colour, f"var(--{name})")
    return svg


_TIDYING = [
    (r"^.*?(?=<svg)", ""),
    (r"<metadata>.*?</metadata>|<style.*?</style>", ""),
    # The page says how large it is shown, and that it is a picture.
    (r'(<svg [^>]*?)width="[^"]*" height="[^"]*"', r'\1aria-hidden="true"'),
    # Names that would be on the page several times; those of paths and clips are salted.
    (r'<g id="[^"]*"', "<g"),
    (r"font-family: [^;\"]+;? ?", ""),
]
