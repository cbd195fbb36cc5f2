"""Names that callers give: one or several of them, and what a principal may be called.

Always true: a text where a list of names is expected is one name, never a list of letters.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import cast

from tokenwire.errors import InputError

__all__ = [
    "MOST_PRINCIPAL",
    "TENANT_END",
    "THREAD",
    "checked_principal",
    "checked_thread",
    "names_of",
    "principal_fault",
]

#: The id of a conversation.
THREAD = re.compile(r"[A-Za-z0-9_.:@-]{1,128}")
#: Characters of a principal's name.
MOST_PRINCIPAL = 200
#: Between the tenant and the id of a principal in its name. Neither can contain it, as it is not
#: printable, so no name without a tenant looks like one with a tenant.
TENANT_END = "\x1e"


def names_of(value: object, what: str) -> list[str]:
    """The names of an argument: one text, or an iterable of texts. ``what``: the argument's name.
    Raises `TypeError` for anything else."""
    if isinstance(value, str):
        return [value]
    names = list(cast(Iterable[object], value)) if isinstance(value, Iterable) else [value]
    for name in names:
        if not isinstance(name, str):
            raise TypeError(f"{what} must be a list of texts, not of {type(name).__name__}")
    return cast(list[str], names)


def principal_fault(name: object) -> str | None:
    """What is wrong with the name of a principal, without the name itself, which may contain a key;
    None for a valid one: 1 to 200 printable characters, without spaces around them."""
    if not isinstance(name, str):
        return f"must be a text, not {type(name).__name__}"
    if not name.strip():
        return "must not be an empty text"
    if len(name) > MOST_PRINCIPAL:
        return f"must have at most {MOST_PRINCIPAL} characters, not {len(name)}"
    if not name.isprintable():
        return "must not contain line breaks, control or invisible characters"
    if name != name.strip():
        return "must not begin or end with a space"
    return None


def checked_principal(name: str) -> str:
    """The same name, which may begin with a tenant. Raises `InputError` for one that no principal
    may have; empty stands for everybody, where no keys are used."""
    if name == "":
        return name
    for part in name.split(TENANT_END, 1) if isinstance(name, str) else [name]:
        if fault := principal_fault(part):
            raise InputError(f"'principal' {fault}", field="principal")
    return name


def checked_thread(name: object) -> None:
    """Raise `InputError` unless ``name`` is a conversation's id, or None."""
    if name is not None and not (isinstance(name, str) and THREAD.fullmatch(name)):
        raise InputError("'thread' must be 1 to 128 letters, digits or _ . : @ -", field="thread")
