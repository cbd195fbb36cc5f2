"""The native twin of the express lane, where `tokenwire-speedups` is installed.

Always true: without it, and with one that is made for another lane, everything works as it does in
Python, which the twin equals byte for byte.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeVar

from tokenwire import __version__
from tokenwire.run.call import template

__all__ = ["SWITCH", "TWIN", "Twin", "numbers_of", "twin_of"]

N = TypeVar("N")

#: The environment variable that turns the twin off, as "0".
SWITCH = "TOKENWIRE_SPEEDUPS"
#: Raised with every change of what `Lane.received`, `Lane._append`, `Connection.data_received` or
#: `Connection.pull` do, here and in the twin.
TWIN = 11
_ABSENT = "not installed"
_REINSTALL = f"pip install --force-reinstall --no-deps tokenwire-speedups=={__version__}"


class Twin(NamedTuple):
    """What was found of the twin."""

    #: In place of ``Lane.received``; None where that stays.
    received: Callable[[Any, bytes], bool] | None
    #: In place of ``Connection.data_received``.
    data_received: Callable[[Any, bytes], None] | None = None
    #: In place of ``Connection.pull``.
    pull: Callable[[Any], bool] | None = None
    #: Its version, if it is used.
    version: str = ""
    #: Why it is not used.
    reason: str = ""
    #: What makes one that is installed usable.
    advice: str = ""


def _found() -> tuple[Any, str]:
    """The twin's module; or None, and why it is not used."""
    if os.environ.get(SWITCH, "1").strip().lower() in ("0", "false", "no", "off"):
        return None, f"{SWITCH} turns it off"
    try:
        import tokenwire_speedups as speedups
    except ImportError as error:
        is_missing = isinstance(error, ModuleNotFoundError)
        return None, _ABSENT if is_missing else f"does not load: {error}"
    version = str(getattr(speedups, "__version__", "unknown"))
    if (version, getattr(speedups, "TWIN", None)) != (__version__, TWIN):
        return None, f"version {version} is made for another release"
    return speedups, ""


def numbers_of(plain: type[N]) -> type[N]:
    """The twin's class with the attributes of ``plain``; that one without a twin."""
    return getattr(_found()[0], "Numbers", plain)


def twin_of(names: dict[str, Any], classes: Mapping[str, type]) -> Twin:
    """The twin of the lane whose module has the globals ``names`` and touches ``classes``."""
    speedups, reason = _found()
    if speedups is None:
        is_absent = reason == _ABSENT or SWITCH in reason
        return Twin(None, reason=reason, advice="" if is_absent else _REINSTALL)
    matches = (
        template._TEXT,
        template._NUMBER,
        template._COUNT,
        template._WORD,
        template._BLANKS,
    )
    try:
        received, data_received, pull = speedups.bind(names, dict(classes), matches)
    except (TypeError, AttributeError) as error:
        return Twin(None, reason=f"does not fit this lane: {error}", advice=_REINSTALL)
    return Twin(received, data_received, pull, speedups.__version__)
