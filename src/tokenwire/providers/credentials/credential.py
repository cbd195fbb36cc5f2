"""A key of a provider that changes: read when it is needed, replaced before it expires.

Always true: one refresh is under way at a time, whoever waits for it; a source that fails, hangs or
gives what cannot be a key ends in an `AuthenticationError` that names the source and nothing of the
key; a caller that is cancelled cancels no refresh of others.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import threading
import time
from collections.abc import Awaitable, Callable
from typing import Any, Protocol, TypeVar, runtime_checkable

import msgspec

from tokenwire.errors import AuthenticationError
from tokenwire.per_loop import PerLoop
from tokenwire.providers.base import Call, Target

__all__ = ["Credential", "KeyCredential", "Token", "called", "in_daemon"]

_log = logging.getLogger("tokenwire.providers")

#: Seconds that a source may take.
FETCH_TIMEOUT = 10.0
#: A token is replaced so many seconds before its end, or after four fifths of its life.
EARLY, SHARE = 300.0, 0.2
_MOST = 16 << 10

R = TypeVar("R")


class Token(msgspec.Struct, frozen=True):
    """A key: its ``value``, and until when it holds (Unix seconds; None: for one call)."""

    value: str
    expires: float | None = None

    def __repr__(self) -> str:  # a key must not reach a log by way of a repr
        return f"Token(expires={self.expires})"


@runtime_checkable
class Credential(Protocol):
    """What a request to a provider is authorised with."""

    async def ready(self, target: Target, *, rejected: bool = False) -> Target:
        """``target`` with what its request needs; ``rejected``: what ``target`` has was refused.
        Raises `AuthenticationError`."""
        ...

    def sign(self, call: Call, target: Target) -> Call:
        """``call`` with its signature, where there is one."""
        ...


class KeyCredential:
    """A key from ``fetch``, called ``name`` in messages. ``is_bearer``: it goes into the header
    ``authorization``, also where a static key has another one."""

    def __init__(
        self,
        name: str,
        fetch: Callable[[], Awaitable[Token]],
        *,
        is_bearer: bool = False,
        timeout: float = FETCH_TIMEOUT,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.name = name
        self._fetch, self._is_bearer, self._timeout, self._clock = fetch, is_bearer, timeout, clock
        self._token: Token | None = None
        self._fetched = 0.0
        #: How many calls wait for a refresh.
        self._waiting: dict[asyncio.Task[Token], int] = {}
        self._under_way: PerLoop[list[asyncio.Task[Token]]] = PerLoop(list)

    async def ready(self, target: Target, *, rejected: bool = False) -> Target:
        """``target`` with a key that holds."""
        token = self._token
        if rejected and token is not None and token.value == target.api_key:
            token = self._token = None  # else somebody has replaced it meanwhile
        now = self._clock()
        if token is None or token.expires is None or token.expires <= now:
            token = await self._refreshed()
        elif token.expires - now < min(EARLY, SHARE * (token.expires - self._fetched)):
            self._refresh().add_done_callback(self._note)
        quirks = target.quirks - {"api_key_header"} if self._is_bearer else target.quirks
        return msgspec.structs.replace(target, api_key=token.value, quirks=quirks)

    def sign(self, call: Call, target: Target) -> Call:
        """The call as it is: its headers have the key."""
        return call

    async def _refreshed(self) -> Token:
        task = self._refresh()
        self._waiting[task] = self._waiting.get(task, 0) + 1
        try:
            return await asyncio.shield(task)
        finally:
            self._waiting[task] -= 1
            if not self._waiting[task]:
                del self._waiting[task]
                self._drop(task)
                task.cancel()  # nobody waits for it any more; one that is over stays as it is

    def _refresh(self) -> asyncio.Task[Token]:
        """The refresh that is under way, or a new one."""
        tasks = self._under_way()
        if not tasks:
            task = asyncio.get_running_loop().create_task(self._work())
            tasks.append(task)
            task.add_done_callback(self._drop)
            task.add_done_callback(_retrieve)
        return tasks[0]

    def _drop(self, task: asyncio.Task[Token]) -> None:
        """No further caller joins it."""
        tasks = self._under_way()
        if task in tasks:
            tasks.remove(task)

    async def _work(self) -> Token:
        started = self._clock()
        try:
            async with asyncio.timeout(self._timeout):
                token = await self._fetch()
        except TimeoutError:
            raise self._failure(f"did not answer within {self._timeout:g} s") from None
        except AuthenticationError:
            raise
        except Exception as error:  # the words of the exception may hold the key
            _log.warning("%s failed: %s", self.name, type(error).__name__)
            raise self._failure(f"failed ({type(error).__name__})") from None
        fault = _fault(token.value)
        if fault:
            raise self._failure(f"gave a key that {fault}")
        self._token, self._fetched = token, started
        return token

    def _note(self, task: asyncio.Task[Token]) -> None:
        """A refresh that came early may fail: the token holds for a while."""
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.warning("a refresh before its time: %s", error)

    def _failure(self, what: str) -> AuthenticationError:
        return AuthenticationError(f"no key for the provider: {self.name} {what}")


def called(name: str, function: Callable[[], Any]) -> KeyCredential:
    """A key from a function of the application, plain or async, that returns a text or a
    `Token`."""

    async def fetch() -> Token:
        value = function()
        if inspect.isawaitable(value):
            value = await value
        return value if isinstance(value, Token) else Token(value)

    return KeyCredential(name, fetch)


async def in_daemon(function: Callable[[], R]) -> R:
    """What a blocking function returns. Its thread keeps nobody from leaving when it hangs."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[R] = loop.create_future()

    def deliver(value: R | None, error: BaseException | None) -> None:
        if future.done():
            return
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(value)  # type: ignore[arg-type]

    def body() -> None:
        value, failure = None, None
        try:
            value = function()
        except StopIteration:
            failure = RuntimeError("StopIteration")
        except BaseException as error:
            failure = error
        try:
            loop.call_soon_threadsafe(deliver, value, failure)
        except RuntimeError:  # the loop was closed meanwhile
            return

    threading.Thread(target=body, name="tokenwire-credential", daemon=True).start()
    return await future


def _fault(value: object) -> str:
    """Why this can be no key; empty where it can."""
    if not isinstance(value, str):
        return f"is a {type(value).__name__}, not a text"
    if not value:
        return "is empty"
    if len(value) > _MOST:
        return f"has more than {_MOST} characters"
    if not value.isascii():
        return "has characters beyond ASCII"
    if not all("!" <= character <= "~" for character in value):
        return "has a line break, a space or a control character"
    return ""


def _retrieve(task: asyncio.Task[Any]) -> None:
    if not task.cancelled():
        task.exception()  # somebody has looked at it: no warning when it is collected
