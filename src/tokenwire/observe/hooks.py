"""Where facts go: a list of callables.

Always true: an observer can never break a stream; one that raises is removed, and that is logged.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from tokenwire.observe.facts import Fact

__all__ = ["Observer", "observe", "report"]

Observer = Callable[[Fact], None]

_observers: list[Observer] = []
_log = logging.getLogger("tokenwire.observe")


def observe(observer: Observer) -> Callable[[], None]:
    """Tell ``observer`` every fact from now on. Returns the call that ends it."""
    _observers.append(observer)

    def stop() -> None:
        if observer in _observers:
            _observers.remove(observer)

    return stop


def report(fact: Fact) -> None:
    """Tell all observers; costs nothing when there are none."""
    for observer in tuple(_observers):
        try:
            observer(fact)
        except Exception:
            _observers.remove(observer)
            _log.exception("an observer failed and was removed")
