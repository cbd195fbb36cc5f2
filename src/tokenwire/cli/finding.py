"""One result of ``tokenwire doctor``, and how results are printed."""

from __future__ import annotations

from typing import Final, Literal

import msgspec

from tokenwire.cli.terminal import inert

__all__ = ["Finding", "exit_code", "print_finding"]

_MARKS: Final = {"ok": "ok     ", "missing": "missing", "broken": "BROKEN ", "note": "note   "}


class Finding(msgspec.Struct, omit_defaults=True):
    """The result of one check. ``missing`` is optional; ``broken`` is an error; a ``note`` says
    what might be better."""

    what: str
    state: Literal["ok", "missing", "broken", "note"]
    detail: str = ""
    advice: str = ""


def print_finding(finding: Finding) -> None:
    """One line on standard output, at once."""
    line = f"{_MARKS[finding.state]}  {finding.what:<22} {finding.detail}"
    text = line.rstrip() + (f" -> {finding.advice}" if finding.advice else "")
    print(inert(text), flush=True)


def exit_code(findings: list[Finding], *, as_json: bool) -> int:
    """1 if something is broken, else 0. Prints all of them first, ``as_json``."""
    if as_json:
        print(msgspec.json.encode(findings).decode())
    return 1 if any(f.state == "broken" for f in findings) else 0
