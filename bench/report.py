"""The tables of a report, in Markdown."""

from collections.abc import Iterable, Mapping, Sequence
from statistics import median

from bench.rounds import Key, Sample
from bench.servers import NAMES
from bench.targets import Verdict


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table with columns of even width; the first is left-aligned, the others right-aligned."""
    cells = [list(head), *map(list, rows)]
    widths = [max(len(row[n]) for row in cells) for n in range(len(head))]

    def line(row: Sequence[str]) -> str:
        name, *figures = (cell.rjust(width) for cell, width in zip(row, widths, strict=True))
        return f"| {' | '.join([row[0].ljust(len(name)), *figures])} |"

    first, *others = ("-" * (width + 1) for width in widths)
    rule = "|".join(["", f"{first}-", *(f"{dashes}:" for dashes in others), ""])
    return "\n".join([line(cells[0]), rule, *map(line, cells[1:])])


def of_samples(samples: Mapping[Key, Sequence[Sample]]) -> str:
    head = [
        "workload", "by", "per second", "min to max", "p50 ms", "p99 ms",
        "CPUs: API", "store", "load", "others",
    ]  # fmt: skip
    rows = table(head, [_row(key, taken) for key, taken in samples.items() if taken])
    return f"""{rows}

CPUs: how many processors were busy with the HTTP server, with PostgreSQL or Redis, with the load generator,
and with other processes of this machine."""


def _row(key: Key, taken: Sequence[Sample]) -> list[str]:
    def middle(figure: str, scale: float, form: str) -> str:
        values = [value for sample in taken if (value := getattr(sample, figure)) is not None]
        return format(median(values) * scale, form) if values else ""

    rates = [sample.per_second for sample in taken]
    return [
        key.workload,
        NAMES[key.by],
        f"{median(rates):,.0f}",
        f"{min(rates):,.0f} to {max(rates):,.0f}",
        middle("p50", 1000, ".1f"),
        middle("p99", 1000, ".1f"),
        *[middle(figure, 1, ".2f") for figure in ("api", "store", "generator", "others")],
    ]


def of_verdicts(verdicts: Iterable[Verdict]) -> str:
    head = ["target", "bound", "ratio", "min to max", ""]
    return table(
        head,
        [
            [
                verdict.text,
                f"{'≤' if verdict.most else '≥'} {verdict.bound:g}",
                f"{verdict.ratio:.2f}",
                f"{verdict.least_seen:.2f} to {verdict.most_seen:.2f}",
                "met" if verdict.met else "MISSED",
            ]
            for verdict in verdicts
        ],
    )
