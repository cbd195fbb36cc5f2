"""Headers that a request's answer gets from whatever it went through.

Always true: what is noted during a request is said in the head of its own answer, and in no other.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

__all__ = ["collected", "header_value", "note"]

Headers = list[tuple[bytes, bytes]]

_headers: ContextVar[Headers | None] = ContextVar("tokenwire.headers", default=None)


@contextmanager
def collected(headers: Headers) -> Iterator[None]:
    """Gather in ``headers`` what is noted meanwhile."""
    token = _headers.set(headers)
    try:
        yield
    finally:
        _headers.reset(token)


def header_value(headers: Headers, name: str) -> str | None:
    """The value of the header ``name`` in ``headers``; None without one."""
    key = name.lower().encode("latin-1")
    return next((value.decode("latin-1") for one, value in headers if one == key), None)


def note(name: str, value: str) -> None:
    """A header of the answer to the request under way, in place of an earlier one; nothing outside
    of a request."""
    headers = _headers.get()
    if headers is not None:
        key = name.lower().encode("latin-1")
        headers[:] = [pair for pair in headers if pair[0] != key]
        headers.append((key, value.encode("latin-1")))
