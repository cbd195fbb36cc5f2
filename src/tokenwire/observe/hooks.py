"""Where facts go: a list of callables.

Always true: an observer can never break a stream; one that raises is removed, and that is logged.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from tokenwire.observe.facts import Fact

__all__ = ["Observer", "observe", "report"]

Observer = Callable[[Fact], None]

#: Replaced as a whole, never changed: `report` needs no copy.
_observers: tuple[Observer, ...] = ()
_log = logging.getLogger("tokenwire.observe")


def observe(observer: Observer) -> Callable[[], None]:
    """Tell ``observer`` every fact from now on. Returns the call that ends it."""
    global _observers
    _observers = (*_observers, observer)

    def stop() -> None:
        _remove(observer)

    return stop


def report(fact: Fact) -> None:
    """Tell all observers; costs nothing when there are none."""
    for observer in _observers:
        try:
            observer(fact)
        except Exception:
            _remove(observer)
            _log.exception("an observer failed and was removed")


def _remove(observer: Observer) -> None:
    global _observers
    left = list(_observers)
    if observer in left:
        left.remove(observer)
        _observers = tuple(left)
