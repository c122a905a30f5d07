"""Slots in words."""

from collections.abc import Iterable


def slot_ranges(slots: Iterable[int]) -> str:
    """Such as "0-7,12"; empty without slots."""
    ranges: list[list[int]] = []
    for slot in sorted(slots):
        if ranges and slot == ranges[-1][1] + 1:
            ranges[-1][1] = slot
        else:
            ranges.append([slot, slot])
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in ranges)


def parse_slots(text: str) -> list[int]:
    """The slots of "0-7,12", ascending.

    :raises ValueError: with a sentence
    """
    slots: set[int] = set()
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        numbers = (first, last if dash else first)
        if not all(each.isascii() and each.isdigit() and len(each) <= 3 for each in numbers):
            raise ValueError(f"{text!r} does not name slots, such as 8-15 or 1,3,8-11")
        slots.update(range(int(numbers[0]), int(numbers[1]) + 1))
    if not slots:
        raise ValueError(f"{text!r} names no slot")
    return sorted(slots)
