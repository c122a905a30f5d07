"""RESULTS.md, rendered from results.json: a row for each promise, then the details of each."""

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from proof.promises import PROMISES


@dataclass(frozen=True)
class Trial:
    """One thing that a campaign tried.

    :param tried: what was done, and how often
    :param outcome: what was observed; "all", or figures
    :param counts: how often, by plural noun; added up for the promise's row
    :param figures: what the promise's row shows as observed
    """

    tried: str
    outcome: str = "all"
    counts: dict[str, int] = field(default_factory=dict)
    figures: str = ""


@dataclass(frozen=True)
class Result:
    """The latest run of one campaign.

    :param seconds: of the whole campaign
    :param date: ISO 8601
    """

    passed: bool
    seconds: int
    seed: int
    date: str
    trials: list[Trial]

    @property
    def tried(self) -> str:
        counts: Counter[str] = Counter()
        for trial in self.trials:
            counts.update(trial.counts)
        return ", ".join(f"{count:,} {noun}" for noun, count in counts.items())

    @property
    def outcome(self) -> str:
        figures = [trial.figures for trial in self.trials if trial.figures]
        return (", ".join(figures) or "all") if self.passed else "FAILED"


@dataclass(frozen=True)
class WholeRun:
    """The latest run of all campaigns."""

    seconds: int
    seed: int
    date: str


@dataclass
class Results:
    """The latest result of each promise, which a run of others keeps."""

    promises: dict[str, Result] = field(default_factory=dict)
    whole: WholeRun | None = None

    @classmethod
    def load(cls, path: Path) -> "Results":
        """Promises that no longer exist are left out."""
        if not path.exists():
            return cls()
        found = json.loads(path.read_text())
        promises = {
            name: Result(**{**result, "trials": [Trial(**trial) for trial in result["trials"]]})
            for name, result in found["promises"].items()
            if name in PROMISES
        }
        return cls(promises, found["whole"] and WholeRun(**found["whole"]))

    def save(self, path: Path) -> None:
        path.write_text(json.dumps(asdict(self), indent=1, ensure_ascii=False) + "\n")

    def markdown(self) -> str:
        known = {name: self.promises[name] for name in PROMISES if name in self.promises}
        return "\n".join([*_heading(self.whole), "", *_summary(known), *_details(known), ""])


def _heading(whole: WholeRun | None) -> list[str]:
    run = (
        f"Latest whole run: {whole.date}, seed {whole.seed}, {whole.seconds / 60:.0f} minutes."
        if whole
        else "No whole run yet."
    )
    return [
        "# Proof results",
        "",
        f"{run} `make proof` runs every campaign, `make proof ARGS=soak` one of them;"
        " `SEED=` repeats its random choices.",
    ]


def _summary(known: Mapping[str, Result]) -> list[str]:
    return _table(
        [
            (name, PROMISES[name].sentence, result.tried, result.outcome, result.seconds, result.date)
            for name, result in known.items()
        ],
        ("campaign", "promise", "tried", "outcome", "s", "date"),
    )


def _details(known: Mapping[str, Result]) -> list[str]:
    lines = []
    for name, result in known.items():
        lines += ["", f"## {name}", ""]
        lines += [f"{PROMISES[name].sentence}. Seed {result.seed}, {result.seconds} s, {result.date}.", ""]
        rows = [(trial.tried, trial.outcome) for trial in result.trials]
        lines += _table(rows if result.passed else [*rows, ("the rest", "FAILED")], ("tried", "outcome"))
    return lines


def _table(rows: list[tuple[Any, ...]], header: tuple[str, ...]) -> list[str]:
    lines = [header, ("---",) * len(header), *rows]
    return ["| " + " | ".join(map(str, line)) + " |" for line in lines]
