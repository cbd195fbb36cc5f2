"""What a token lets its holder do: scopes on one run, or on one conversation and its later runs.

Always true: a grant is that of the request under way and reaches no task of a run; what is not
granted is refused, and what is outside of a grant looks as if it did not exist.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Literal

import msgspec

from tokenwire.errors import (
    ForbiddenError,
    InputError,
    NotAuthenticatedError,
    NotFoundError,
    RoleError,
)

__all__ = [
    "EXPIRED",
    "SCOPES",
    "Grant",
    "Kind",
    "Scope",
    "current_grant",
    "only_by_login",
    "scopes_of",
    "thread_to_start",
    "within",
]

#: ``read``: read; ``write``: start runs, cancel, answer tools; ``approve``: answer approvals;
#: ``produce``: write runs from outside of the server.
Scope = Literal["read", "write", "approve", "produce"]
SCOPES: tuple[Scope, ...] = ("read", "write", "approve", "produce")
Kind = Literal["run", "thread"]

EXPIRED = "invalid or expired token"


class Grant(msgspec.Struct, frozen=True):
    """``name``: of the run or thread; ``id``: the same for a token and all that it is refreshed to.
    ``ends``: Unix seconds at which it ends, ``until``: up to which it may be refreshed.
    ``generation``: of the target's tokens; ``created``: of the run. ``session``: the session behind
    it, if any; ``member``: the membership. ``is_ticket``: it came as a ticket."""

    kind: Kind
    name: str
    scopes: tuple[Scope, ...]
    id: str
    ends: int
    until: int
    generation: bytes = b""
    created: float = 0.0
    session: str = ""
    member: str = ""
    is_ticket: bool = False

    def require(self, scope: Scope) -> None:
        """Raise `RoleError` without this scope, `NotAuthenticatedError` after the end: a
        WebSocket may be open for longer."""
        if time.time() >= self.ends:
            raise NotAuthenticatedError(EXPIRED)
        if scope not in self.scopes:
            raise RoleError(f"this token does not have the scope '{scope}'", role=scope)

    def require_run(self, run: str, threads: Collection[str | None]) -> None:
        """Raise `NotFoundError` unless the grant reaches the run, whose conversation has the names
        ``threads``."""
        if self.name not in ((run,) if self.kind == "run" else threads):
            raise NotFoundError("no such run")


_current: ContextVar[Grant | None] = ContextVar("tokenwire.grant", default=None)


def current_grant() -> Grant | None:
    """The grant of the request under way; None where its sender may do all that a principal may."""
    return _current.get()


@contextmanager
def within(grant: Grant | None) -> Iterator[None]:
    """Hold what follows to ``grant``."""
    token = _current.set(grant)
    try:
        yield
    finally:
        _current.reset(token)


def thread_to_start(thread: str | None, scope: Scope = "write") -> str | None:
    """The conversation of a run that is to be started in ``thread``: under a grant its own, also
    for a wire that names none. Raises `ForbiddenError` for another."""
    grant = _current.get()
    if grant is None:
        return thread
    grant.require(scope)
    if grant.kind == "run":
        raise ForbiddenError("this token is for one run and starts none")
    if thread not in (None, grant.name):
        raise ForbiddenError("this token starts runs in its own conversation only")
    return grant.name


def only_by_login() -> None:
    """Raise `ForbiddenError` under a grant: erasing and listing are not for tokens."""
    if _current.get() is not None:
        raise ForbiddenError("a token cannot do this; sign in")


def scopes_of(names: Iterable[str]) -> tuple[Scope, ...]:
    """``names`` as scopes, in their order; ``read`` is always one. Raises `InputError`."""
    if isinstance(names, str):
        names = (names,)
    wanted = set(names)
    unknown = sorted(str(name) for name in wanted.difference(SCOPES))
    if unknown:
        raise InputError(
            f"unknown scope '{unknown[0][:40]}'; choose of {', '.join(SCOPES)}", field="scopes"
        )
    return tuple(scope for scope in SCOPES if scope in wanted or scope == "read")
