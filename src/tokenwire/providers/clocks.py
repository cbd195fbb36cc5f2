"""Deadlines of single providers and models, from the environment and the providers' table.

Always true: pure; a model's value counts before its provider's, the environment before the table; a
value that is no number of seconds above 0 is an error that names its variable.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

from tokenwire.errors import ConfigError

__all__ = ["CLOCKS", "checked_clocks", "clocks_of", "variable_prefix"]

#: The clocks of a model call; `tokenwire.run.call.deadlines` says what each measures.
CLOCKS = ("connect", "first_event", "idle", "keep_alive", "total")


def variable_prefix(name: str) -> str:
    """A provider's or model's name as a piece of a variable's name: ``gpt-5.1`` -> ``GPT_5_1``."""
    return re.sub(r"[^A-Z0-9]+", "_", name.upper()).strip("_")


def clocks_of(
    env: Mapping[str, str], prefix: str, model: str, table: Mapping[str, float]
) -> dict[str, float]:
    """Seconds of the clocks that are set for ``model``: ``{prefix}_{MODEL}_{CLOCK}_TIMEOUT``, else
    ``{prefix}_{CLOCK}_TIMEOUT``, else ``table``. Raises `ConfigError`."""
    clocks = dict(table)
    for clock in CLOCKS:
        for owner in (f"{prefix}_{variable_prefix(model)}", prefix):
            variable = f"{owner}_{clock.upper()}_TIMEOUT"
            text = env.get(variable, "").strip()
            if text:
                clocks[clock] = _seconds(variable, text)
                break
    return clocks


def checked_clocks(owner: str, clocks: Mapping[str, float]) -> None:
    """Raises `ConfigError` for a clock that does not exist or a value that is not above 0."""
    for name, seconds in clocks.items():
        if name not in CLOCKS:
            raise ConfigError(f"{owner}: unknown clock '{name}'; choose from {', '.join(CLOCKS)}")
        _seconds(f"{owner}: clock '{name}'", str(seconds))


def _seconds(name: str, text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds < math.inf:
        raise ConfigError(f"{name} must be a number of seconds above 0, not '{text[:40]}'")
    return seconds
