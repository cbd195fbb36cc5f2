"""``Retry-After`` in every form."""

from __future__ import annotations

import pytest

from tokenwire.framing.retry_after import http_date, seconds_after

NOW = 1_795_000_000.0  # Wed, 18 Nov 2026 13:46:40 GMT... as a number only


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("2", 2.0),
        ("0", 0.0),
        (" 1.5 ", 1.5),
        ("2s", 2.0),
        ("1.25s", 1.25),
        ("500ms", 0.5),
        ("2m", 120.0),
        ("1m30s", 90.0),
        ("6m0s", 360.0),
        ("1h2m3s", 3723.0),
        ("1d", 86400.0),
        ("", None),
        ("soon", None),
        ("-1", 0.0),
        ("1e9", None),
        ("inf", None),
        ("nan", None),
        ("9" * 40, None),
        ("s", None),
        ("1x", None),
    ],
)
def test_seconds_and_durations(text: str, seconds: float | None) -> None:
    assert seconds_after(text, NOW) == seconds


@pytest.mark.parametrize(
    "text",
    [
        "Sun, 06 Nov 1994 08:49:37 GMT",
        "06 Nov 1994 08:49:37 GMT",
        "Sun Nov  6 08:49:37 1994",
        "1994-11-06T08:49:37Z",
        "1994-11-06T08:49:37.123Z",
        "Sun, 06 Nov 1994 08:49:37 UTC",
        "Sun, 06 Nov 1994 08:49:37 +0000",
    ],
)
def test_dates(text: str) -> None:
    assert http_date(text) == 784111777.0
    assert seconds_after(text, 784111777.0 - 30) == 30.0
    assert seconds_after(text, 784111777.0 + 30) == 0.0
    assert seconds_after(text) is None


@pytest.mark.parametrize(
    "text",
    ["Sun, 31 Feb 1994 08:49:37 GMT", "Sun, 06 Xyz 1994 08:49:37 GMT", "99:99", "1994-13-01"],
)
def test_what_is_no_date(text: str) -> None:
    assert http_date(text) is None
