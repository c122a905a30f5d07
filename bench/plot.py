"""Pictures of a run, as SVG: bars of rates, curves of costs."""

from collections.abc import Mapping, Sequence
from html import escape
from math import log10
from statistics import median

from bench.rounds import Key, Sample
from bench.servers import (
    CALL_EACH,
    CEILING,
    FLASHSALE,
    LOCK_AND_SUM,
    NAMES,
    PGBENCH,
    REDIS,
    REDIS_FSYNC,
)

COLOURS = {
    FLASHSALE: "#2563eb",
    CEILING: "#94a3b8",
    CALL_EACH: "#d97706",
    LOCK_AND_SUM: "#b91c1c",
    PGBENCH: "#059669",
    REDIS: "#9333ea",
    REDIS_FSYNC: "#d8b4fe",
}
CURVES = ("#2563eb", "#d97706", "#b91c1c", "#9333ea", "#059669", "#0891b2", "#64748b", "#be185d", "#78350f")
WIDTH, LEFT, RIGHT, TOP = 900, 215, 75, 44
BAR, GAP = 15, 12
COLUMNS, LINE = 4, 18
HEIGHT, MARGIN = 340, 70
TICKS = [digit * 10**power for power in range(4) for digit in (1, 2, 5)]
"""microseconds"""


def bars(samples: Mapping[Key, Sequence[Sample]], title: str) -> str:
    """Bars for the medians, with a line from the least to the most of the rounds."""
    groups: dict[str, list[tuple[str, list[float]]]] = {}
    for key, taken in samples.items():
        groups.setdefault(key.workload, []).append((key.by, [sample.per_second for sample in taken]))
    most = max(max(rates) for group in groups.values() for _, rates in group)
    scale = (WIDTH - LEFT - RIGHT) / most
    shown = [by for by in NAMES if any(key.by == by for key in samples)]
    parts, y = _legend([(NAMES[by], COLOURS[by]) for by in shown])
    for workload, group in groups.items():
        middle = y + len(group) * BAR / 2 + 4
        parts.append(f'<text x="{LEFT - 10}" y="{middle:.1f}" text-anchor="end">{escape(workload)}</text>')
        for by, rates in group:
            width = median(rates) * scale
            low, high = LEFT + min(rates) * scale, LEFT + max(rates) * scale
            centre = y + BAR / 2 - 0.5
            parts += [
                f'<rect x="{LEFT}" y="{y}" width="{width:.1f}" height="{BAR - 2}" fill="{COLOURS[by]}">'
                f"<title>{escape(NAMES[by])}</title></rect>",
                f'<path d="M{low:.1f} {centre}H{high:.1f}" stroke="#0f172a" stroke-width="1.5"/>',
                f'<text x="{max(LEFT + width, high) + 6:.1f}" y="{y + BAR - 4}">{median(rates):,.0f}</text>',
            ]
            y += BAR
        y += GAP
    return _svg(title, parts, y + 8)


def curves(costs: Mapping[str, Mapping[int, float]], title: str) -> str:
    """A curve for each function: microseconds a request by requests in a call, both axes logarithmic."""
    sizes = sorted({size for by_size in costs.values() for size in by_size})
    values = [cost for by_size in costs.values() for cost in by_size.values()]
    colours = dict(zip(costs, CURVES[: len(costs)], strict=True))
    parts, top = _legend(list(colours.items()))
    bottom = top + HEIGHT
    least, most = log10(min(values)), log10(max(values))

    def x(size: int) -> float:
        return MARGIN + (WIDTH - 2 * MARGIN) * log10(size / sizes[0]) / log10(sizes[-1] / sizes[0])

    def y(cost: float) -> float:
        return bottom - HEIGHT * (log10(cost) - least) / (most - least)

    for tick in TICKS:
        if min(values) <= tick <= max(values):
            parts += [
                f'<path d="M{MARGIN} {y(tick):.1f}H{WIDTH - MARGIN}" stroke="#e2e8f0"/>',
                f'<text x="{MARGIN - 8}" y="{y(tick) + 4:.1f}" text-anchor="end">{tick:,} µs</text>',
            ]
    for size in sizes:
        parts.append(f'<text x="{x(size):.1f}" y="{bottom + 20}" text-anchor="middle">{size:,}</text>')
    for name, by_size in costs.items():
        points = " ".join(f"{x(size):.1f},{y(cost):.1f}" for size, cost in sorted(by_size.items()))
        parts.append(
            f'<polyline points="{points}" fill="none" stroke="{colours[name]}" stroke-width="2">'
            f"<title>{escape(name)}</title></polyline>"
        )
    return _svg(title, parts, bottom + 32)


def _legend(entries: Sequence[tuple[str, str]]) -> tuple[list[str], int]:
    """Names and their colours below the title, and where the drawing may begin."""
    step = (WIDTH - 40) / COLUMNS
    parts = []
    for number, (name, colour) in enumerate(entries):
        x, y = 20 + number % COLUMNS * step, TOP + number // COLUMNS * LINE
        parts += [
            f'<rect x="{x:.0f}" y="{y - 6}" width="11" height="11" fill="{colour}"/>',
            f'<text x="{x + 16:.0f}" y="{y + 4}">{escape(name)}</text>',
        ]
    return parts, TOP + (len(entries) - 1) // COLUMNS * LINE + 22


def _svg(title: str, parts: Sequence[str], height: float) -> str:
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}"'
            ' font-family="system-ui, sans-serif" font-size="12" fill="#0f172a">',
            '<rect width="100%" height="100%" fill="white"/>',
            f'<text x="20" y="24" font-size="15" font-weight="600">{escape(title)}</text>',
            *parts,
            "</svg>\n",
        ]
    )
