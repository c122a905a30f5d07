"""One picture of a run, as SVG: for each work, how many requests a second each side took."""

from collections.abc import Mapping, Sequence
from html import escape
from statistics import median

from bench.rounds import Key, Sample
from bench.servers import CALL_EACH, CEILING, FLASHSALE, LOCK_AND_SUM, NAMES, PGBENCH

COLOURS = {
    FLASHSALE: "#2563eb",
    CEILING: "#94a3b8",
    CALL_EACH: "#d97706",
    LOCK_AND_SUM: "#b91c1c",
    PGBENCH: "#059669",
}
WIDTH, LEFT, RIGHT, TOP = 900, 215, 75, 44
BAR, GAP = 15, 12


def bars(samples: Mapping[Key, Sequence[Sample]], title: str) -> str:
    """Bars for the medians, with a line from the least to the most of the rounds."""
    groups: dict[str, list[tuple[str, list[float]]]] = {}
    for key, taken in samples.items():
        groups.setdefault(key.workload, []).append((key.by, [sample.per_second for sample in taken]))
    most = max(max(rates) for group in groups.values() for _, rates in group)
    scale = (WIDTH - LEFT - RIGHT) / most
    y = TOP + 22
    parts = []
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
    shown = [by for by in NAMES if any(key.by == by for key in samples)]
    step = (WIDTH - 20) / len(shown)
    legend = [
        f'<rect x="{20 + n * step:.0f}" y="{TOP - 6}" width="11" height="11" fill="{COLOURS[by]}"/>'
        f'<text x="{36 + n * step:.0f}" y="{TOP + 4}">{escape(NAMES[by])}</text>'
        for n, by in enumerate(shown)
    ]
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {y + 8}" width="{WIDTH}"'
            ' font-family="system-ui, sans-serif" font-size="12" fill="#0f172a">',
            '<rect width="100%" height="100%" fill="white"/>',
            f'<text x="20" y="24" font-size="15" font-weight="600">{escape(title)}</text>',
            *legend,
            *parts,
            "</svg>\n",
        ]
    )
