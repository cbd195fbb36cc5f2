"""What ``before_start`` sees and may change of a run that does not exist yet.

Always true: what the application set is checked as what a caller sends, and a mistake in it is an
error of the application, not of the caller.
"""

from __future__ import annotations

import copy
from typing import Any, NoReturn

from tokenwire.errors import HookError, StartRefusedError, TokenwireError
from tokenwire.events.message import Message, messages_of, require_content
from tokenwire.events.principal import parts_of
from tokenwire.events.request import Request
from tokenwire.relay.description import RunMeta
from tokenwire.run.hooks.hook import Hook
from tokenwire.run.plan import LoopLimits

__all__ = ["StartRequest", "reviewed"]


class StartRequest:
    """A run that is about to start. ``before_start`` may change ``request`` (and with it
    ``messages``), ``model``, ``metadata`` and ``limits`` (None: the server's), or call `refuse`;
    the rest is to be read: ``run``: the id that it will have; ``principal``: the name of who
    starts it; ``thread``: its conversation; ``key``: the idempotency key; ``app``: the host's own
    object; ``meta``: the description as the caller sent it."""

    def __init__(
        self, run: str, meta: RunMeta, *, key: str | None, limits: LoopLimits | None, app: Any
    ) -> None:
        self.request: Request = copy.deepcopy(meta.request)
        self.model: str = meta.model
        self.metadata: dict[str, Any] = copy.deepcopy(meta.metadata or {})
        self.limits: LoopLimits | None = limits
        self._run, self._meta, self._key, self._app = run, meta, key, app

    @property
    def messages(self) -> list[Message]:
        """The conversation of ``request``."""
        return self.request.messages

    @messages.setter
    def messages(self, value: Any) -> None:
        self.request.messages = messages_of(value)

    @property
    def user(self) -> str:
        """The plain id of the principal who starts the run, without its tenant."""
        return parts_of(self.principal)[0]

    @property
    def tenant(self) -> str | None:
        """The tenant of the principal; None without one."""
        return parts_of(self.principal)[1]

    @property
    def run(self) -> str:
        """The id that the run will have."""
        return self._run

    @property
    def principal(self) -> str:
        """The name of who starts it (`Principal.of` has id and tenant)."""
        return self._meta.principal

    @property
    def thread(self) -> str | None:
        """The id of its conversation."""
        return self._meta.thread

    @property
    def key(self) -> str | None:
        """The idempotency key of the request."""
        return self._key

    @property
    def app(self) -> Any:
        """The host's own object: ``Live(app=...)``."""
        return self._app

    def refuse(
        self,
        message: str,
        *,
        status: int = 403,
        code: str = "start_refused",
        retry_after: float | None = None,
    ) -> NoReturn:
        """Refuse the run: nothing starts, and the caller gets ``message`` with the HTTP ``status``
        (400 to 599), ``code`` and ``retry_after`` (seconds), in the form of its wire. Raises
        `StartRefusedError`."""
        raise StartRefusedError(message, status=status, code=code, retry_after=retry_after)


async def reviewed(hook: Hook, start: StartRequest) -> RunMeta:
    """The description as the application wants it. Raises what it refuses with (any
    `TokenwireError` of its own), and `HookError`."""
    returned = await hook.call(start.run, start, passes=TokenwireError)
    if returned is not None and returned is not start:
        raise _mistake(hook, start, f"it returned {type(returned).__name__}, not None")
    meta = start._meta
    try:
        if not isinstance(start.request, Request):
            raise TypeError(f"request is a {type(start.request).__name__}")
        start.request.messages = messages_of(start.request.messages)
        require_content(start.request.messages)
        if not isinstance(start.model, str) or not isinstance(start.metadata, dict):
            raise TypeError("model must be a text, metadata a dict")
        if start.limits is not None and not isinstance(start.limits, LoopLimits):
            raise TypeError("limits must be LoopLimits, or None")
    except (TokenwireError, TypeError) as error:
        raise _mistake(hook, start, str(error)) from error
    changed = copy.copy(meta)
    changed.request, changed.model, changed.limits = start.request, start.model, start.limits
    changed.metadata = start.metadata or meta.metadata
    return changed


def _mistake(hook: Hook, start: StartRequest, what: str) -> HookError:
    return hook.failure(start.run, TypeError(f"{hook.name}: {what}"))
