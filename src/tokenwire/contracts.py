"""Whether an object fulfils a protocol, asked once for each type.

Before Python 3.12 an `isinstance` with a protocol looks up each of its members anew: some 25 to 60
microseconds, several times in each run.

Always true: the answer is that of `isinstance` for the first object of the type; so the members of
these protocols belong to the type, or are set when an object is made.
"""

from __future__ import annotations

from typing import Any, TypeGuard, TypeVar

__all__ = ["fulfils"]

T = TypeVar("T")

#: Types that are remembered: programs have some dozens, and tests make them as they go.
_MOST = 1024
_answers: dict[tuple[type, type], bool] = {}


def fulfils(value: Any, contract: type[T]) -> TypeGuard[T]:
    """Whether ``value`` is a ``contract``, a protocol that can be checked at run time."""
    key = (type(value), contract)
    answer = _answers.get(key)
    if answer is None:
        if len(_answers) >= _MOST:
            _answers.clear()
        answer = _answers[key] = isinstance(value, contract)
    return answer
