"""The observers: a list of callables that receive facts.

Always true: an observer can never break a stream; one that raises is removed and logged.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from tokenwire.observe.facts import Fact

__all__ = ["Observer", "observe", "report"]

Observer = Callable[[Fact], None]

#: Replaced as a whole, never changed, so that `report` needs no copy.
_observers: tuple[Observer, ...] = ()
_log = logging.getLogger("tokenwire.observe")


def observe(observer: Observer) -> Callable[[], None]:
    """Call ``observer`` with every fact from now on. Returns a function that removes it."""
    global _observers
    _observers = (*_observers, observer)

    def stop() -> None:
        _remove(observer)

    return stop


def report(fact: Fact) -> None:
    """Call all observers; costs nothing without any."""
    for observer in _observers:
        try:
            observer(fact)
        except Exception:
            _remove(observer)
            _log.exception("an observer failed and was removed")


def _remove(observer: Observer) -> None:
    global _observers
    remaining = list(_observers)
    if observer in remaining:
        remaining.remove(observer)
        _observers = tuple(remaining)
