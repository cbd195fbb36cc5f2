"""The page of faults names tests that exist."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_every_test_on_the_page_of_faults_is_there() -> None:
    page = (ROOT / "docs" / "guide" / "faults.md").read_text()
    named = set(re.findall(r"`((?:[\w-]+/)+[\w.-]+\.(?:py|ts))`", page))
    assert len(named) > 25
    for name in named:
        place = name if name.startswith("packages/") else f"tests/{name}"
        assert (ROOT / place).exists(), name
