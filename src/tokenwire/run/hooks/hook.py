"""One function of the application, called at a point of a run.

Always true: a call ends within its time, whatever the function does; a cancel of the caller reaches
an async function; what the function raises becomes a `HookError` whose message says which hook it
was and nothing else; a blocking function runs in a thread.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable
from typing import Any

from tokenwire.errors import ConfigError, HookError, TokenwireError
from tokenwire.tools.calls.running import Failed, Job, Slots, run_tool
from tokenwire.tools.context import ToolContext

__all__ = ["HOOK_TIMEOUT", "Hook", "Hooks", "Translate"]

_log = logging.getLogger("tokenwire.run")

#: Seconds that one call of a hook may take.
HOOK_TIMEOUT = 10.0


#: An exception of a framework as an error of ours; None for any other.
Translate = Callable[[BaseException], TokenwireError | None]


class Hook:
    """``function``, which is called ``name`` in messages and takes ``count`` arguments. Raises
    `ConfigError` for what cannot be called so."""

    #: Calls at once on one event loop.
    concurrency = 256

    def __init__(
        self,
        name: str,
        function: object,
        *,
        count: int,
        timeout: float = HOOK_TIMEOUT,
        translate: Translate | None = None,
    ) -> None:
        if not callable(function):
            raise ConfigError(f"{name} must be a function, not {type(function).__name__}")
        if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
            raise ConfigError(f"{name} is a generator; use a plain or a coroutine function")
        try:
            inspect.signature(function).bind(*[object()] * count)
        except TypeError as error:
            raise ConfigError(f"{name} must take {count} argument(s): {error}") from None
        except ValueError:
            pass  # a builtin without a signature
        if not timeout > 0:
            raise ConfigError(f"the timeout of {name} must be more than 0 s, not {timeout!r}")
        self.name, self.timeout = name, timeout
        self._translate = translate
        self._function: Callable[..., Any] = function

    async def call(self, run: str, *arguments: Any, passes: type[TokenwireError]) -> Any:
        """What the function returns. Raises `HookError`, and what it raises of ``passes``."""
        slots = Slots.of(self)
        if not await slots.take(self.timeout):
            raise HookError(f"{self.name} is busy: {self.concurrency} calls of it still run")
        job = Job(
            function=self._function,
            args=list(arguments),
            kwargs={},
            context=ToolContext(""),
            say=_unheard,
            timeout=self.timeout,
            grace=0.5,
            cap=0,
        )
        ended = await run_tool(job, slots)
        if not isinstance(ended, Failed):
            return ended.value
        if ended.error is None:
            _log.error("run %s: %s did not finish in %g s", run, self.name, self.timeout)
            raise HookError(f"{self.name} did not finish in {self.timeout:g} s", hook=self.name)
        error = ended.error
        if self._translate is not None:
            error = self._translate(error) or error
        if isinstance(error, passes):
            raise error
        raise self.failure(run, error)

    def failure(self, run: str, error: BaseException) -> HookError:
        """The error of a call that failed; the exception itself is for the server's log."""
        _log.error("run %s: %s failed", run, self.name, exc_info=error)
        return HookError(
            f"{self.name} of the application failed; the server's log has the exception",
            hook=self.name,
        )


class Hooks:
    """The hooks of a process; None: there is none. ``before_start`` takes a `StartRequest`,
    ``before_tool`` a `CallRequest`, ``after_tool`` that and a `CallResult`; ``timeout``: seconds
    for one call of one; ``translate``: makes errors of ours from those of a framework. Raises
    `ConfigError`."""

    def __init__(
        self,
        *,
        before_start: Callable[..., Any] | None = None,
        before_tool: Callable[..., Any] | None = None,
        after_tool: Callable[..., Any] | None = None,
        timeout: float = HOOK_TIMEOUT,
        translate: Translate | None = None,
    ) -> None:
        def hook(name: str, function: object, count: int) -> Hook | None:
            if function is None:
                return None
            return Hook(name, function, count=count, timeout=timeout, translate=translate)

        self.before_start = hook("before_start", before_start, 1)
        self.before_tool = hook("before_tool", before_tool, 1)
        self.after_tool = hook("after_tool", after_tool, 2)


def _unheard(_: object) -> None:
    """Hooks report no progress."""
