"""The parameters of a campaign, and where it records what it tried."""

import json
import random
from dataclasses import asdict
from pathlib import Path
from typing import TypeVar

from proof.results import Trial

Size = TypeVar("Size")


class Campaign:
    """One test's share of a campaign.

    :param test: its node id, which with the seed makes its random numbers
    :param seed: repeats the random choices of a run (--proof-seed)
    :param full: the whole campaign, instead of the small form in `make test`
    :param report: a file to append trials to, a JSON object a line
    """

    def __init__(self, test: str, seed: int, *, full: bool, report: Path | None) -> None:
        self.seed = seed
        self.full = full
        self.random = random.Random(f"{seed} {test}")
        self._report = report

    def size(self, small: Size, full: Size) -> Size:
        """How much to try: `small` in `make test`, `full` in the campaign."""
        return full if self.full else small

    def record(self, tried: str, outcome: str = "all", *, figures: str = "", **counts: int) -> None:
        """Record what was tried, and its outcome. In the nouns of `counts`, _ stands for a blank."""
        if self._report is not None:
            nouns = {noun.replace("_", " "): count for noun, count in counts.items()}
            with self._report.open("a") as lines:
                lines.write(json.dumps(asdict(Trial(tried, outcome, nouns, figures))) + "\n")
