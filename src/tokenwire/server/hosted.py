"""A server inside of an application: who its users are is the application's to say.

Always true: nobody but the application can name a user, as the name is in the scope and not in the
request; without one a request is refused, as it is without a key.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Awaitable, Callable
from typing import Any, cast

from starlette.requests import HTTPConnection
from starlette.types import Scope

from tokenwire.errors import ConfigError, NotAuthenticatedError, TokenwireError
from tokenwire.events.principal import Principal

__all__ = ["UNKNOWN_USER", "Hosted", "User", "ask_user", "principal_of", "set_user", "user_of"]

#: Who sends a request, from its connection (which is a mapping, its ASGI scope, as well): a
#: principal, or the name of one without a tenant, or None to refuse the request. It may be a
#: coroutine function.
User = Callable[[HTTPConnection], str | Principal | Awaitable[str | Principal | None] | None]

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


def set_user(scope: Scope, who: Principal) -> None:
    """Let ``who`` be the principal of the request of ``scope``."""
    scope[_KEY] = who


def user_of(scope: Scope) -> Principal | None:
    """The principal that the application named; None without one."""
    return scope.get(_KEY)


def principal_of(value: object) -> Principal:
    """What the application's function returned: a principal, or the name of one. Raises
    `NotAuthenticatedError` for None, `TokenwireError` for anything else."""
    if value is None:
        raise NotAuthenticatedError("sign in first")
    if isinstance(value, Principal):
        return value
    try:
        return Principal(cast(str, value))  # which checks it
    except ConfigError as error:
        _log.error("user must return a Principal, its name or None: %s", error)
        raise TokenwireError(UNKNOWN_USER) from None


async def ask_user(user: User, scope: Scope) -> None:
    """Ask the application who sends the request of ``scope``. Raises as `principal_of` does."""
    try:
        verdict: Any = user(HTTPConnection(scope))
        if inspect.isawaitable(verdict):
            verdict = await verdict
    except ConfigError as error:  # of a Principal that is not valid, which is no fault of the asker
        _log.error("user failed: %s", error)
        raise TokenwireError(UNKNOWN_USER) from None
    set_user(scope, principal_of(verdict))
