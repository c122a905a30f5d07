"""Durations as text."""

from datetime import timedelta


def format_duration(duration: timedelta) -> str:
    """A duration in its largest unit that counts to two or more: 4 s, 3 min, 2 h, 5 d."""
    total = duration.total_seconds()
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if total >= 2 * size:
            return f"{total / size:.0f} {unit}"
    return f"{total:.0f} s"
