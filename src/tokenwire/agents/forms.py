"""Names and values that an agent gives, in the form in which they are recorded.

Always true: a value is plain JSON, and a copy of what the agent holds.
"""

from __future__ import annotations

from typing import Any

import msgspec

from tokenwire.agents.journal import Operation, digest_of
from tokenwire.errors import InputError, StepError

__all__ = ["arguments_digest", "check_name", "encoded", "plain", "value_of"]

#: Characters of the name of a step, an approval or a fact.
_MOST_NAME = 256


def check_name(name: object, what: str) -> None:
    """Refuse a name that could not be stored. Raises `InputError`."""
    valid = isinstance(name, str) and 0 < len(name) <= _MOST_NAME
    if not valid or (not str(name).isascii() and _is_broken(str(name))):
        raise InputError(
            f"the name of {what} must be a text of 1 to {_MOST_NAME} characters, not {name!r:.80}"
        )


def _is_broken(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return True
    return False


def arguments_digest(name: str, args: tuple[Any, ...], keywords: dict[str, Any]) -> str:
    """What a step is known by beside its ``name``. Raises `InputError`."""
    try:
        return digest_of(args, keywords)
    except (TypeError, ValueError, RecursionError, msgspec.MsgspecError) as error:
        raise InputError(f"the arguments of step '{name}' have no JSON form: {error}") from None


def encoded(value: Any) -> bytes:
    """The value as JSON text. Raises `InputError` for one without a JSON form."""
    try:
        return msgspec.json.encode(value)
    except (TypeError, ValueError, RecursionError, msgspec.MsgspecError) as error:
        raise InputError(f"the value has no JSON form: {error}") from None


def plain(value: Any) -> Any:
    """The value as plain JSON, and a copy: what the agent changes later is not what it sent."""
    return msgspec.json.decode(encoded(value))


def value_of(operation: Operation) -> Any:
    """The recorded value of a finished step. Raises `StepError` where the step failed."""
    if operation.error is not None:
        raise StepError(operation.error)
    return msgspec.json.decode(operation.value) if operation.value is not None else None
