"""A section of a report: what one measurement of a part contributes."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from bench.rounds import Key, Sample
from bench.targets import Verdict

Say = Callable[[str], None]
"""Tells whoever waits how far it is."""


@dataclass(frozen=True)
class Section:
    """
    :param text: Markdown, with a heading of the third level if it needs one
    :param verdicts: on the targets that this part judges
    :param samples: of what was measured in rounds
    """

    text: str
    verdicts: tuple[Verdict, ...] = ()
    samples: Mapping[Key, Sequence[Sample]] = field(default_factory=dict)
