"""Random hostile calls of the SQL functions."""

import random
from collections.abc import Mapping, Sequence

from tests.support.hostile_arguments import HOSTILE, SANE, SHAPES, Function, literal

# Random strings are made of these.
FRAGMENTS = [
    "a", "Z", "0", " ", "\t", "\r\n", "\x01", "\x1b[2J", "\x7f", "'", '"', "\\", "{", "}", ",", "%", "$1",
        ";", "--", "/*",
    "NULL", "é", "e\u0301", "İ", "ß", "ﬁ", "🦶", "👩\u200d👩\u200d👧", "\u202e", "\u200b", "\ufeff", "\ufffe",
    "\uffff",
    "\U0010ffff", "٣", "Ⅷ",
]  # fmt: skip
# Invalid UTF-8: overlong, half a surrogate pair, beyond Unicode, truncated.
INVALID_UTF8 = [b"\xc0\xaf", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xe2\x82", b"\xff", b"abc\x80"]
LONGEST = 1_000_000
"""characters; of an occasional string"""


class HostileCalls:
    """Generates calls.

    :param rng: the seed of all choices
    :param stand_ins: the current values of "@held" and the like; may change between calls
    """

    def __init__(self, rng: random.Random, stand_ins: Mapping[str, str]) -> None:
        self._rng = rng
        self._stand_ins = stand_ins

    def arguments(self, function: Function) -> list[bytes | None]:
        """One list of arguments, each in PostgreSQL's text format; None is null."""
        rng = self._rng
        are_arrays = [kind.endswith("[]") for kind in function.types]
        if any(are_arrays) and rng.random() < 0.25:
            shapes = [rng.choice(SHAPES)] * len(are_arrays)
            if rng.random() < 0.5:
                shapes = [rng.choice(SHAPES) for _ in are_arrays]
            return [shape and shape.encode() for shape in shapes]
        size = rng.choice((0, 1, 1, 1, 2, 3, 5, 8, 20))
        # Mostly one argument is wrong at a time, so that the call gets as far as it can.
        wrong = rng.random() < 0.3
        bad_position = rng.randrange(len(are_arrays)) if are_arrays else 0
        made = []
        for position, (name, kind, is_array) in enumerate(
            zip(function.names, function.types, are_arrays, strict=True)
        ):
            chance = 0.8 if wrong or position == bad_position else 0.05
            element = kind.removesuffix("[]")
            if is_array:
                made.append(self._array([self._value(name, element, chance) for _ in range(size)]))
            else:
                value = self._value(name, kind, chance)
                made.append(value.encode() if isinstance(value, str) else value)
        return made

    def _value(self, name: str, kind: str, chance: float) -> str | bytes | None:
        rng = self._rng
        if rng.random() > chance:
            # Different keys within a batch.
            sane = SANE[name]
            value = sane + str(rng.randrange(50)) if kind == "text" and "key" in name else sane
            return self._stand_ins.get(value, value)
        if rng.random() < 0.08:
            return None
        if kind == "text" and rng.random() < 0.5:
            return self._string()
        if kind in ("integer", "bigint") and rng.random() < 0.3:
            return str(rng.getrandbits(rng.choice((4, 16, 31, 32, 53, 63, 64, 80))) * rng.choice((1, -1)))
        value = rng.choice([*HOSTILE[kind], *self._stand_ins] if kind == "bigint" else HOSTILE[kind])
        return self._stand_ins.get(value, value)

    def _string(self) -> str | bytes:
        rng = self._rng
        if rng.random() < 0.05:
            return rng.choice(INVALID_UTF8)
        if rng.random() < 0.002:
            return rng.choice(FRAGMENTS) * (LONGEST // 4)
        return "".join(rng.choices(FRAGMENTS, k=rng.choice((1, 2, 5, 20, 254, 255, 256, 300))))

    def _array(self, values: Sequence[str | bytes | None]) -> bytes:
        # Invalid UTF-8 is represented by a mark until the literal is made.
        marks = {f"<bytes {position}>": value for position, value in enumerate(values)}
        text = literal(
            f"<bytes {position}>" if isinstance(value, bytes) else value
            for position, value in enumerate(values)
        )
        if self._rng.random() < 0.05:
            text = f"[0:{len(values) - 1}]={text}" if values else text
        data = text.encode()
        for mark, value in marks.items():
            if isinstance(value, bytes):
                data = data.replace(mark.encode(), value)
        return data
