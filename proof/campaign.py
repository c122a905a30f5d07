"""What a promise's test knows of the campaign it is part of: how far to go, from which seed, whom to tell."""

import json
import random
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeVar

Size = TypeVar("Size")


@dataclass(frozen=True)
class Row:
    """A line of RESULTS.md.

    :param promise: the file it belongs to, test_<promise>.py
    :param tried: what was done, and how often, in words
    :param survived: what was seen; "all", or figures
    """

    promise: str
    tried: str
    survived: str
    seed: int


class Campaign:
    """One test's share of the campaign.

    :param promise: the name of its file
    :param test: its node id, which with the seed makes its random numbers
    :param seed: replays the run, given as --proof-seed
    :param full: the whole campaign, and not the small one of every day
    :param report: file to append rows to, a JSON object a line
    """

    def __init__(self, promise: str, test: str, seed: int, *, full: bool, report: Path | None) -> None:
        self.promise = promise
        self.seed = seed
        self.full = full
        self.random = random.Random(f"{seed} {test}")
        self._report = report

    def size(self, small: Size, full: Size) -> Size:
        """How much to try: `small` in every run of the suite, `full` in the campaign."""
        return full if self.full else small

    def tried(self, tried: str, survived: str = "all") -> None:
        """Enter a row into the results, once it has survived."""
        if self._report is not None:
            row = Row(self.promise, tried, survived, self.seed)
            with self._report.open("a") as lines:
                lines.write(json.dumps(asdict(row)) + "\n")
