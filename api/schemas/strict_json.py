"""Strict JSON (RFC 8259), as far as PostgreSQL can store it.

msgspec decodes and checks types in one pass, but accepts duplicate members and, in members that it skips,
invalid UTF-8. A body that may contain either is parsed a second time, here.
"""

import json
import re
from typing import Any, NoReturn

from api.problems import INVALID_REQUEST, MALFORMED_JSON, Problem

MAX_DEPTH = 64


def check_well_formed(data: bytes) -> None:
    """Reject what is not strict JSON, or what PostgreSQL cannot store.

    :raises Problem: malformed_json unless the data is one JSON text in UTF-8 without duplicate members and
        with at most MAX_DEPTH levels; invalid_request for a NUL character or a number beyond a double's range
    """
    text, value = _parse(data)
    if "\\u" in text:
        _check_escapes(value)


def replace_unstorable(data: bytes) -> bytes:
    """Strict JSON with U+FFFD for what PostgreSQL cannot store in a string: NUL and lone surrogates.

    Only an escape can write either.

    :returns: the same object if nothing had to be replaced
    :raises Problem: as check_well_formed, but for such characters
    """
    text, _ = _parse(data)
    if "\\u" not in text:
        return data
    storable = _ESCAPE.sub(_storable_escape, text)
    return data if storable == text else storable.encode()


_ESCAPE = re.compile(
    r"\\(?:u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}"  # a pair of surrogates
    r"|(?P<unstorable>u0000|u[dD][89a-fA-F][0-9a-fA-F]{2})|.)"  # an escaped backslash begins no other escape
)


def _storable_escape(escape: re.Match[str]) -> str:
    return r"\ufffd" if escape["unstorable"] else escape[0]


def _parse(data: bytes) -> tuple[str, Any]:
    try:
        text = data.decode()
        if text.startswith("\ufeff"):
            raise ValueError("it starts with a byte order mark")
        value = json.loads(
            text, object_pairs_hook=_object, parse_constant=_constant, parse_float=_float, parse_int=_integer
        )
        if data.count(b"[") + data.count(b"{") > MAX_DEPTH and _depth(value) > MAX_DEPTH:
            raise ValueError(f"it is nested deeper than {MAX_DEPTH} levels")
        return text, value
    except RecursionError:
        raise Problem(
            MALFORMED_JSON, f"The body is not valid JSON: it is nested deeper than {MAX_DEPTH} levels."
        ) from None
    except ValueError as error:
        raise Problem(MALFORMED_JSON, f"The body is not valid JSON: {error}.") from None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):  # guard: duplicate-members
        seen: set[str] = set()
        for name, _ in pairs:
            if name in seen:
                raise ValueError(f"duplicate member {name[:40]!a}")
            seen.add(name)
    return members


def _constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")


def _float(digits: str) -> float:
    value = float(digits)
    if value in (float("inf"), float("-inf")) or (value == 0 and digits.lower().split("e")[0].strip("-0.")):
        raise Problem(INVALID_REQUEST, f"Number {digits[:40]} is out of the range of a double.")
    return value


def _integer(digits: str) -> int:
    # Python limits the digits that it converts; PostgreSQL can store every integer that fits into a body.
    if len(digits) < 400:
        return int(digits)
    raise Problem(INVALID_REQUEST, f"Number {digits[:40]}... is out of the range of a double.")


def _depth(value: Any) -> int:
    depth = 0
    level = [value]
    while level:
        depth += 1
        level = [
            child
            for parent in level
            if isinstance(parent, (dict, list))
            for child in (parent.values() if isinstance(parent, dict) else parent)
            if isinstance(child, (dict, list))
        ]
    return depth


def _check_escapes(value: Any) -> None:
    """Reject lone surrogates, which only an escape can write, and NUL, which PostgreSQL cannot store."""
    level = [value]
    while level:
        item = level.pop()
        if isinstance(item, dict):
            level.extend(item)
            level.extend(item.values())
        elif isinstance(item, list):
            level.extend(item)
        elif isinstance(item, str):
            if not item.isascii() and any("\ud800" <= character <= "\udfff" for character in item):
                raise Problem(
                    MALFORMED_JSON, "The body is not valid JSON: a string contains a lone surrogate."
                )
            if "\0" in item:
                raise Problem(INVALID_REQUEST, "A string contains the character NUL.")
