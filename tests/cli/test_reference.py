"""docs/reference/cli.md is what the code says."""

from __future__ import annotations

from support.cli import ROOT
from tokenwire.cli.reference import cli_reference


def test_the_page_is_made_from_the_commands() -> None:
    page = (ROOT / "docs" / "reference" / "cli.md").read_text(encoding="utf-8")
    assert page == cli_reference(), "run: python -m tokenwire.cli.reference > docs/reference/cli.md"
