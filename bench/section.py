"""A section of a report: what one measurement of a part contributes."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from bench.rounds import Key, Sample
from bench.targets import Verdict

Say = Callable[[str], None]
"""reports progress"""


@dataclass(frozen=True)
class Section:
    """
    :param text: Markdown, with a heading of the third level if it needs one
    :param verdicts: on the targets that this part judges
    :param samples: of what was measured in rounds, drawn as bars
    :param costs: of a function, by the number of requests in a call, in microseconds, drawn as curves
    """

    text: str
    verdicts: tuple[Verdict, ...] = ()
    samples: Mapping[Key, Sequence[Sample]] = field(default_factory=dict)
    costs: Mapping[str, Mapping[int, float]] = field(default_factory=dict)
