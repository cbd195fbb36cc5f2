"""A server inside of an application: who its users are is the application's to say.

Always true: nobody but the application can name a user, as the name is in the scope and not in the
request; without one a request is refused, as it is without a key; a function of the application
that blocks runs in a thread.
"""

from __future__ import annotations

import functools
import inspect
import logging
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar, cast

from starlette.concurrency import run_in_threadpool
from starlette.requests import HTTPConnection
from starlette.responses import Response
from starlette.types import Scope

from tokenwire.errors import ConfigError, NotAuthenticatedError, TokenwireError
from tokenwire.events.principal import Principal
from tokenwire.exits import guarded_tasks

__all__ = [
    "UNKNOWN_USER",
    "Hosted",
    "Refusal",
    "User",
    "ask",
    "ask_user",
    "call",
    "principal_of",
    "refusal_of",
    "set_refusal",
    "set_user",
    "user_of",
]

#: Who sends a request, from its connection (which is a mapping, its ASGI scope, as well): a
#: principal, or the name of one without a tenant, or None to refuse the request. It may be a
#: coroutine function; any other runs in a thread.
User = Callable[[HTTPConnection], str | Principal | Awaitable[str | Principal | None] | None]
#: Why the server must not look at a request: an error, or the application's own answer.
Refusal = TokenwireError | Response

Argument = TypeVar("Argument")

#: What a request hears whose user the application could not name.
UNKNOWN_USER = "the server cannot tell who you are; its log says why"
_KEY = "tokenwire.user"
_REFUSAL = "tokenwire.refusal"
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


def set_refusal(scope: Scope, refusal: Refusal) -> None:
    """Let the request of ``scope`` be refused with ``refusal``, under the headers of any answer."""
    scope[_REFUSAL] = refusal


def refusal_of(scope: Scope) -> Refusal | None:
    """Why the request of ``scope`` is refused; None where it is not."""
    return scope.get(_REFUSAL)


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
    set_user(scope, await ask(user, HTTPConnection(scope)))


async def ask(user: User, connection: HTTPConnection) -> Principal:
    """The principal that ``user`` names for ``connection``. Raises as `principal_of` does, and what
    ``user`` raises."""
    try:
        return principal_of(await call(user, connection))
    except ConfigError as error:  # of a Principal that is not valid, which is no fault of the asker
        _log.error("user failed: %s", error)
        raise TokenwireError(UNKNOWN_USER) from None


async def call(function: Callable[[Argument], Any], argument: Argument) -> Any:
    """What a function of the application returns. A coroutine function runs on the event loop, any
    other in a thread, where it may wait for a database."""
    with guarded_tasks(_task_exited):
        if _is_coroutine_function(function):
            return await function(argument)
        value = await run_in_threadpool(function, argument)
        return await value if inspect.isawaitable(value) else value


def _task_exited(error: BaseException) -> BaseException:
    return RuntimeError(f"a task that the function created raised {type(error).__name__}")


def _is_coroutine_function(function: Callable[..., Any]) -> bool:
    while isinstance(function, functools.partial):
        function = function.func
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(
        type(function).__call__
    )
