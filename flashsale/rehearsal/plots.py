"""The plots of the report, as inline SVG.

Each plot is drawn twice, for a wide page and for a phone. Colours are variables of the page's style sheet, so
that they follow its dark mode; text stays text, in the page's font.
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

from flashsale.rehearsal.observations import Observations, Operation, Phase, StockLevels
from flashsale.rehearsal.statistics import Statistics, rates

WIDE, NARROW = 9.6, 4.2
"""inches at 72 pixels: the text column of the report, and a phone"""

# Placeholders: each is replaced by the variable of its name in the report's style sheet.
_COLOURS = {
    "ink": "#010101",
    "muted": "#020202",
    "line": "#030303",
    "available": "#040404",
    "held": "#050505",
    "awaiting": "#060606",
    "paid": "#070707",
    "view": "#080808",
    "confirm": "#090909",
    "release": "#0a0a0a",
    "surface": "#0b0b0b",
    "bot": "#0c0c0c",
}
COLOUR_OF = {
    Operation.VIEW: "view",
    Operation.HOLD: "held",
    Operation.BOT: "bot",
    Operation.ORDER: "awaiting",
    Operation.WEBHOOK: "paid",
    Operation.CONFIRM: "confirm",
    Operation.RELEASE: "release",
}
_STYLE: Any = {
    "svg.fonttype": "none",
    "font.size": 11.5,
    "text.color": _COLOURS["muted"],
    "axes.labelcolor": _COLOURS["muted"],
    "axes.edgecolor": _COLOURS["line"],
    "axes.facecolor": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.color": _COLOURS["line"],
    "grid.linewidth": 0.8,
    "xtick.color": _COLOURS["line"],
    "ytick.color": _COLOURS["line"],
    "xtick.labelcolor": _COLOURS["muted"],
    "ytick.labelcolor": _COLOURS["muted"],
    "ytick.left": False,
    "figure.facecolor": "none",
    "savefig.facecolor": "none",
    "path.simplify_threshold": 0.3,
}


@mpl.rc_context(_STYLE)
def stock_levels(observed: Observations, width: float) -> str:
    """Units by state over time, stacked: paid, awaiting payment, held, available."""
    figure, axes = _axes(width, 3.4)
    changes = _changes(observed.stock_levels)
    times = [levels.at for levels in changes]
    layers = {name: [getattr(levels, name) for levels in changes] for name in StockLevels._fields[:0:-1]}
    axes.stackplot(
        times, *layers.values(), colors=[_COLOURS[name] for name in layers], step="post", linewidth=0
    )
    axes.set_ylabel("units")
    _label_seconds(axes, observed)
    axes.set_ylim(0, max(sum(levels[1:]) for levels in observed.stock_levels))
    axes.yaxis.set_major_locator(MaxNLocator(5, integer=True))
    _mark_phases(axes, observed.phases, width)
    return _svg(figure, f"units-{width}")


@mpl.rc_context(_STYLE)
def response_rates(observed: Observations, width: float) -> str:
    """Responses per second over time, stacked by operation."""
    figure, axes = _axes(width, 2.7)
    seconds = max(call.at + call.seconds for call in observed.calls)
    bins = int(min(max(8, seconds / 0.25), 80 if width == WIDE else 40))
    operations = [operation for operation in Operation if observed.of(operation)]
    middles = [(n + 0.5) * seconds / bins for n in range(bins)]
    axes.stackplot(
        middles,
        *[rates(observed.of(operation), seconds, bins) for operation in operations],
        colors=[_COLOURS[COLOUR_OF[operation]] for operation in operations],
        step="mid",
        linewidth=0,
    )
    axes.set_ylabel("responses per second")
    _label_seconds(axes, observed)
    axes.set_ylim(bottom=0)
    axes.yaxis.set_major_locator(MaxNLocator(5, integer=True))
    return _svg(figure, f"rates-{width}")


@mpl.rc_context(_STYLE)
def latencies(found: Mapping[Operation, Statistics], width: float) -> str:
    """From the median to the maximum, a row per operation, on a logarithmic scale."""
    figure, axes = _axes(width, 0.9 + 0.36 * len(found))
    for row, (operation, statistics) in enumerate(found.items()):
        colour = _COLOURS[COLOUR_OF[operation]]
        p50, p95, p99, maximum = (seconds * 1000 for seconds in vars(statistics.latency).values())
        axes.plot([p99, maximum], [row, row], color=colour, linewidth=1.5)
        axes.plot([p95, p99], [row, row], color=colour, linewidth=5, solid_capstyle="butt")
        axes.plot([p50, p95], [row, row], color=colour, linewidth=11, solid_capstyle="butt")
        axes.plot([p50], [row], "|", color=_COLOURS["ink"], markersize=15, markeredgewidth=2)
        axes.plot([maximum], [row], "o", color=colour, markersize=4.5)
    axes.set_xscale("log")
    axes.set_yticks(range(len(found)), [str(operation) for operation in found])
    axes.set_ylim(len(found) - 0.4, -0.6)
    low, high = axes.get_xlim()
    axes.set_xlim(low / 1.1, high * 1.1)
    # A phone has room for three or four labels.
    close = high / low < (300 if width == WIDE else 20)
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if close else (1,)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g} ms"))
    axes.tick_params(axis="y", labelcolor=_COLOURS["ink"])
    axes.grid(False, axis="y")
    axes.minorticks_off()
    return _svg(figure, f"latencies-{width}")


def _changes(samples: Sequence[StockLevels]) -> list[StockLevels]:
    """Samples that differ from the one before, and the last."""
    changes = (now for before, now in pairwise(samples) if now[1:] != before[1:] or now is samples[-1])
    return [samples[0], *changes]


def _axes(width: float, height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.add_subplot()


def _label_seconds(axes: Axes, observed: Observations) -> None:
    axes.set_xlim(0, max(observed.stock_levels[-1].at, 0.1))
    axes.set_xlabel("seconds since the first request")
    axes.xaxis.set_major_locator(MaxNLocator(8, steps=[1, 2, 5, 10]))
    axes.grid(False, axis="x")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))


def _mark_phases(axes: Axes, phases: Sequence[Phase], width: float) -> None:
    """A line at the start of each phase, with its name if there is room."""
    total = phases[-1].end
    for phase in phases:
        room = (phase.end - phase.begin) / total * width * 72
        if phase.begin > 0 and room > 4:
            axes.axvline(phase.begin, color=_COLOURS["ink"], linewidth=0.8, linestyle=(0, (2, 3)))
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
    for pattern, replacement in _SIMPLIFICATIONS:
        svg = re.sub(pattern, replacement, svg, flags=re.DOTALL)
    svg = re.sub(r"\d+\.\d\d+", lambda number: f"{float(number[0]):.1f}", svg)
    for name, colour in _COLOURS.items():
        svg = svg.replace(colour, f"var(--{name})")
    return svg


_SIMPLIFICATIONS = [
    (r"^.*?(?=<svg)", ""),
    (r"<metadata>.*?</metadata>|<style.*?</style>", ""),
    # The page sets the size and the accessible name.
    (r'(<svg [^>]*?)width="[^"]*" height="[^"]*"', r'\1aria-hidden="true"'),
    # Ids that would occur several times in the page; those of paths and clips are salted.
    (r'<g id="[^"]*"', "<g"),
    (r"font-family: [^;\"]+;? ?", ""),
]
