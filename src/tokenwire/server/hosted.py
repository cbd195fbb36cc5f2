"""A server inside of an application: who its users are is the application's to say.

Always true: nobody but the application can name a user, as the name is in the scope and not in the
request; without one a request is refused, as it is without a key.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Awaitable, Callable
from typing import Any

from starlette.requests import HTTPConnection
from starlette.types import Scope

from tokenwire.errors import NotAuthenticatedError, TokenwireError
from tokenwire.events.names import principal_fault

__all__ = ["UNKNOWN_USER", "Hosted", "User", "ask_user", "set_user", "user_name", "user_of"]

#: Who sends a request, from its connection (which is a mapping, its ASGI scope, as well): the name
#: of a principal, or None to refuse it. It may be a coroutine function.
User = Callable[[HTTPConnection], str | Awaitable[str | None] | None]

#: What a request hears whose user the application could not name.
UNKNOWN_USER = "the server cannot tell who you are; its log says why"
_KEY = "tokenwire.user"
_log = logging.getLogger("tokenwire.server")


class Hosted:
    """What a server inside of an application leaves to it. ``check_origin``: whether requests that
    change something must come from pages of the same origin; leave it on unless the application
    has a protection against forged requests of its own."""

    def __init__(self, *, check_origin: bool = True) -> None:
        self.check_origin = check_origin


def set_user(scope: Scope, name: str) -> None:
    """Let ``name`` be the principal of the request of ``scope``."""
    scope[_KEY] = name


def user_of(scope: Scope) -> str | None:
    """The principal that the application named; None without one."""
    return scope.get(_KEY)


def user_name(value: object) -> str:
    """What the application's function returned, as the name of a principal. Raises
    `NotAuthenticatedError` for None, `TokenwireError` for what is no name."""
    if value is None:
        raise NotAuthenticatedError("sign in first")
    fault = principal_fault(value)
    if fault is not None:
        _log.error("user must return the name of a principal or None: the name %s", fault)
        raise TokenwireError(UNKNOWN_USER)
    assert isinstance(value, str)
    return value


async def ask_user(user: User, scope: Scope) -> None:
    """Ask the application who sends the request of ``scope``. Raises as `user_name` does."""
    verdict: Any = user(HTTPConnection(scope))
    if inspect.isawaitable(verdict):
        verdict = await verdict
    set_user(scope, user_name(verdict))
