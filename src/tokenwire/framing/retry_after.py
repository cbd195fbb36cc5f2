"""``Retry-After`` in every form that servers send: seconds, a duration such as ``2s``, a date.

Always true: the result is finite and not negative; the time is an argument.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime

__all__ = ["http_date", "seconds_after"]

_DURATION = re.compile(
    r"(?:(\d{1,9})d)?(?:(\d{1,9})h)?(?:(\d{1,9})m(?!s))?(?:(\d{1,9}(?:\.\d{1,9})?)s)?"
    r"(?:(\d{1,9}(?:\.\d{1,9})?)ms)?"
)
_NUMBER = re.compile(r"-?\d{1,9}(?:\.\d{1,9})?")
#: A day in words, day, month, year, time; RFC 9110's three forms, and "UTC" for "GMT".
_DATE = re.compile(
    r"(?:[A-Za-z]{3,9}, )?(\d{1,2})[ -]([A-Za-z]{3})[ -](\d{4}|\d{2}) (\d\d):(\d\d):(\d\d)"
    r"(?: (?:GMT|UTC|[+-]0000))?"
)
_ASCTIME = re.compile(
    r"[A-Za-z]{3} ([A-Za-z]{3}) +(\d{1,2}) (\d\d):(\d\d):(\d\d) (\d{4})(?: (?:GMT|UTC))?"
)
_ISO = re.compile(r"(\d{4})-(\d\d)-(\d\d)[Tt ](\d\d):(\d\d):(\d\d)(?:\.\d{1,9})?(?:[Zz]|\+00:00)")
_MONTHS = tuple("jan feb mar apr may jun jul aug sep oct nov dec".split())
_UNITS = (86_400.0, 3_600.0, 60.0, 1.0, 0.001)


def seconds_after(text: str, now: float | None = None) -> float | None:
    """Seconds to wait, by the value of the header; ``now``: Unix time, needed for dates. None for
    what is none of the forms."""
    text = text.strip()
    if not text:
        return None
    if _NUMBER.fullmatch(text):
        return max(0.0, float(text))
    duration = _DURATION.fullmatch(text.lower())
    if duration is not None:
        parts = zip(duration.groups(), _UNITS, strict=True)
        return sum(float(number) * unit for number, unit in parts if number is not None)
    until = http_date(text)
    return None if until is None or now is None else max(0.0, until - now)


def http_date(text: str) -> float | None:
    """A date as HTTP servers write it, as Unix time in seconds."""
    text = text.strip()
    if match := _DATE.fullmatch(text):
        day, month, year, *clock = match.groups()
    elif match := _ASCTIME.fullmatch(text):
        month, day, *clock, year = match.groups()
    elif match := _ISO.fullmatch(text):
        year, month, day, *clock = match.groups()
    else:
        return None
    if not month.isdigit():
        if month.lower() not in _MONTHS:
            return None
        month = str(_MONTHS.index(month.lower()) + 1)
    full_year = int(year) if len(year) == 4 else 2000 + int(year)
    hour, minute, second = (int(number) for number in clock)
    try:
        date = datetime(full_year, int(month), int(day), hour, minute, min(second, 59), tzinfo=UTC)
    except ValueError:
        return None
    return date.timestamp()
