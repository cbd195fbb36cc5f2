"""Environment variables that nothing reads: a misspelled setting is told, not ignored in silence.

Always true: it is a warning, never a refusal, for the names with our prefix belong to plugins and
deployments as well; values are never shown, since they may be secrets.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Mapping

__all__ = ["PREFIX", "warnings_of"]

PREFIX = "TOKENWIRE_"
#: Read by the commands beside ``serve``, and by clients.
CLIENT_KEY = f"{PREFIX}API_KEY"
_COMMANDS = (f"{PREFIX}CONFIG", f"{PREFIX}DEBUG", f"{PREFIX}URL", CLIENT_KEY)
#: Read when `run.call.native` is imported.
_NATIVE = f"{PREFIX}SPEEDUPS"
#: Made by Kubernetes for a service that is called ``tokenwire``.
_SERVICE_LINK = re.compile(rf"{PREFIX}(SERVICE_(HOST|PORT)(_\w+)?|PORT_[0-9]+_(TCP|UDP)(_\w+)?)")


def warnings_of(
    environ: Mapping[str, str],
    settings: Iterable[str],
    is_provider: Callable[[str], bool],
    *,
    keys_on: bool,
) -> list[str]:
    """One line for each variable of ``environ`` with our prefix that nothing reads. ``settings``:
    the variables of the settings; ``is_provider``: whether a provider reads one; ``keys_on``:
    whether the server has API keys."""
    names = {*settings, *_COMMANDS, _NATIVE}
    lines = [
        _line(variable, names)
        for variable in sorted(environ)
        if variable.upper().startswith(PREFIX)
        and variable not in names
        and not _SERVICE_LINK.fullmatch(variable)
        and not is_provider(variable)
    ]
    if environ.get(CLIENT_KEY) and not keys_on:
        lines.append(
            f"{CLIENT_KEY} is the key of clients; the server has no keys ({CLIENT_KEY}S sets them)"
        )
    return lines


def _line(variable: str, names: set[str]) -> str:
    word = variable.upper().removeprefix(PREFIX)
    near = difflib.get_close_matches(word, sorted(n.removeprefix(PREFIX) for n in names), 1)
    if near:
        return f"unknown environment variable {variable}; did you mean {PREFIX}{near[0]}?"
    return f"unknown environment variable {variable}; docs/reference/settings.md lists them all"
