"""Types of command-line arguments."""

import re
from datetime import UTC, datetime, timedelta
from decimal import Decimal, InvalidOperation
from typing import Any
from zoneinfo import ZoneInfo

import click

ID = click.IntRange(1, 2**63 - 1)
UNITS = click.IntRange(-(2**31), 2**31 - 1)
COUNT = click.IntRange(1, 2**31 - 1)


class _Money(click.ParamType[Decimal]):
    """A decimal number, without rounding."""

    name = "decimal"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> Decimal:
        try:
            amount = Decimal(str(value))
        except InvalidOperation:
            self.fail(f"{value!r} is not a decimal number such as 99.00", param, ctx)
        if not amount.is_finite():
            self.fail(f"{value!r} is not a finite number", param, ctx)
        return amount


class _Instant(click.ParamType[datetime]):
    """An instant: a time in any form of ISO 8601 with an offset, Z or the name of a time zone."""

    name = "time"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        try:
            return parse_instant(str(value))
        except ValueError as error:
            self.fail(str(error), param, ctx)


class _Duration(click.ParamType[timedelta]):
    """A number with a unit, or several: 90s, 2min, 1h30min."""

    name = "duration"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> timedelta:
        text = "".join(str(value).lower().split())
        if not _is_duration(text):
            self.fail(f"{value!r} is not a duration with its unit, such as 90s, 5min, 2h or 3d", param, ctx)
        seconds = sum(int(number) * _SECONDS[unit[0]] for number, unit in _parts(text))
        if seconds > _MAX_SECONDS:
            self.fail(f"{value!r} is longer than {_MAX_SECONDS // 86400} days", param, ctx)
        return timedelta(seconds=seconds)


class OrNone(click.ParamType[Any]):
    """A value of another type, or `none` to lift a term.

    :param lifted: what SQL takes as the absence of the term
    """

    def __init__(self, type_: click.ParamType[Any], lifted: object) -> None:
        self._type = type_
        self._lifted = lifted
        self.name = f"{type_.name} or none"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        return self._lifted if value == "none" else self._type.convert(value, param, ctx)


_split_zone = re.compile(
    r"(?P<time>.*?)(?: +(?P<name>[A-Za-z][\w+/-]*)| *\[(?P<bracketed>[\w+/-]+)\])"
).fullmatch
_ordinal_date = re.compile(r"(\d{4})-?(\d{3})(?=[T ]|$)")
_is_duration = re.compile(r"(?:\d{1,9}(?:s|sec|seconds?|m|min|minutes?|h|hours?|d|days?))+").fullmatch
_parts = re.compile(r"(\d+)([a-z]+)").findall
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_MAX_SECONDS = 3650 * 86400


def parse_instant(text: str) -> datetime:
    """An instant in UTC, from a time in any form of ISO 8601.

    :param text: with Z, an offset, or a zone of the IANA database: `2026-11-28T10:00+01:00`,
        `20261128T090000Z`, `2026-11-28 10:00 Europe/Berlin`, `2026-11-28T10:00[Europe/Berlin]` (RFC 9557)
    :raises ValueError: it is no time, or does not determine one instant; the message is a sentence
    """
    split = _split_zone(text.strip())
    name = split and (split["name"] or split["bracketed"])
    local = _parse_time(split["time"] if split else text.strip(), text)
    try:
        if name is None:
            if local.tzinfo is None:
                raise ValueError(
                    f"{text!r} has no time zone; add an offset, Z or a name: {text}+01:00, {text}Z, "
                    f"'{text} Europe/Berlin'"
                )
            return local.astimezone(UTC)
        return _in_zone(local, name, text)
    except OverflowError:
        raise ValueError(f"{text!r} is out of range") from None


def _parse_time(text: str, whole: str) -> datetime:
    text = text.upper().replace("\u2212", "-")  # ISO 8601's own minus sign
    try:
        if ordinal := _ordinal_date.match(text):
            day = datetime.strptime(ordinal[1] + ordinal[2], "%Y%j").date()
            text = day.isoformat() + text[ordinal.end() :]
        return datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(
            f"{whole!r} is not a time in ISO 8601 with its zone, such as 2026-11-28T10:00+01:00, "
            "2026-11-28T09:00Z or '2026-11-28 10:00 Europe/Berlin'"
        ) from None


def _in_zone(local: datetime, name: str, text: str) -> datetime:
    try:
        zone = ZoneInfo("UTC" if name in ("Z", "z") else name)
    except (KeyError, ValueError, OSError):
        raise ValueError(f"{name!r} is not a time zone of the IANA database, such as Europe/Berlin") from None
    wall = local.replace(tzinfo=None)
    instants = {wall.replace(tzinfo=zone, fold=fold).astimezone(UTC) for fold in (0, 1)}
    # A time that the clocks skip comes back as another one.
    instants = {each for each in instants if each.astimezone(zone).replace(tzinfo=None) == wall}
    if local.tzinfo is not None:
        instants &= {local.astimezone(UTC)}
        if not instants:
            raise ValueError(f"{text!r}: {name} has another offset at that time")
    if not instants:
        raise ValueError(f"{text!r} does not exist: the clocks of {name} skip it")
    if len(instants) > 1:
        raise ValueError(f"{text!r} occurs twice, when the clocks of {name} are set back; add the offset")
    return instants.pop()


MONEY = _Money()
INSTANT = _Instant()
DURATION = _Duration()
