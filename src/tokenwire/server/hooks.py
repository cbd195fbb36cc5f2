"""The application's functions around runs and tool calls, from settings and from code.

Always true: an ``HTTPException`` that ``before_start`` raises is answered with its status.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from starlette.exceptions import HTTPException

from tokenwire.errors import ConfigError, StartRefusedError, TokenwireError
from tokenwire.run.hooks.hook import Hooks
from tokenwire.server.settings import Settings

__all__ = ["hooks_of", "named_function"]


def hooks_of(settings: Settings, **functions: Callable[..., Any] | None) -> Hooks | None:
    """The hooks ``before_start``, ``before_tool`` and ``after_tool``: those of code, else those
    that the settings name; None where there is none. Raises `ConfigError`."""
    names = {
        "before_start": settings.before_start,
        "before_tool": settings.before_tool,
        "after_tool": settings.after_tool,
    }
    hooks = {name: functions.get(name) or named_function(names[name]) for name in names}
    if not any(hooks.values()):
        return None
    return Hooks(**hooks, timeout=settings.hook_timeout, translate=_refusal)


def named_function(name: str | None) -> Callable[..., Any] | None:
    """The function MODULE:NAME or FILE.py:NAME. Raises `ConfigError`."""
    if name is None:
        return None
    from tokenwire.agents.load import load_object

    function = load_object(name, "function")
    if not callable(function):
        raise ConfigError(f"{name!r} is not a function")
    return function


def _refusal(error: BaseException) -> TokenwireError | None:
    if not isinstance(error, HTTPException) or not 400 <= error.status_code <= 599:
        return None
    headers = {key.lower(): value for key, value in (error.headers or {}).items()}
    retry_after = headers.get("retry-after", "")
    return StartRefusedError(
        str(error.detail)[:500],
        status=error.status_code,
        retry_after=float(retry_after) if retry_after.isdecimal() else None,
    )
