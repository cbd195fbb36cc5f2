"""Deliver a language model's answer while it is being written, without losing or repeating a word.

Names are imported on first use, so that ``import tokenwire`` stays fast.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

#: name -> module that holds it.
_WHERE = {
    "BufferLimits": "tokenwire.run.buffer",
    "Approval": "tokenwire.agents.context",
    "Deadlines": "tokenwire.run.call.deadlines",
    "EndedRun": "tokenwire.relay.outbox",
    "LoopLimits": "tokenwire.run.plan",
    "Message": "tokenwire.events.message",
    "CallAnswer": "tokenwire.run.hooks.tools",
    "CallRequest": "tokenwire.run.hooks.tools",
    "CallResult": "tokenwire.run.hooks.tools",
    "Hooks": "tokenwire.run.hooks.hook",
    "PerCall": "tokenwire.tools.per_call",
    "StartRequest": "tokenwire.relay.starts.request",
    "Principal": "tokenwire.events.principal",
    "PrincipalLimits": "tokenwire.events.principal",
    "Progress": "tokenwire.tools.context",
    "Registry": "tokenwire.providers.registry",
    "Request": "tokenwire.events.request",
    "Result": "tokenwire.run.stream",
    "RetryPolicy": "tokenwire.run.call.recover",
    "Run": "tokenwire.run.stream",
    "RunContext": "tokenwire.agents.context",
    "Runs": "tokenwire.relay.runs",
    "Tool": "tokenwire.tools.registry",
    "ToolContext": "tokenwire.tools.context",
    "ToolSet": "tokenwire.tools.registry",
    "TokenwireError": "tokenwire.errors",
    "agent": "tokenwire.agents.functions",
    "assistant": "tokenwire.events.message",
    "open_store": "tokenwire.log.open",
    "stream": "tokenwire.ask",
    "stream_with_tools": "tokenwire.with_tools",
    "system": "tokenwire.events.message",
    "tool": "tokenwire.tools.registry",
    "user": "tokenwire.events.message",
}

__all__ = [
    "Approval",
    "BufferLimits",
    "CallAnswer",
    "CallRequest",
    "CallResult",
    "Deadlines",
    "EndedRun",
    "Hooks",
    "LoopLimits",
    "Message",
    "PerCall",
    "Principal",
    "PrincipalLimits",
    "Progress",
    "Registry",
    "Request",
    "Result",
    "RetryPolicy",
    "Run",
    "RunContext",
    "Runs",
    "StartRequest",
    "TokenwireError",
    "Tool",
    "ToolContext",
    "ToolSet",
    "__version__",
    "agent",
    "assistant",
    "open_store",
    "stream",
    "stream_with_tools",
    "system",
    "tool",
    "user",
]

if TYPE_CHECKING:
    from tokenwire.agents.context import Approval, RunContext
    from tokenwire.agents.functions import agent
    from tokenwire.ask import stream
    from tokenwire.errors import TokenwireError
    from tokenwire.events.message import Message, assistant, system, user
    from tokenwire.events.principal import Principal, PrincipalLimits
    from tokenwire.events.request import Request
    from tokenwire.log.open import open_store
    from tokenwire.providers.registry import Registry
    from tokenwire.relay.outbox import EndedRun
    from tokenwire.relay.runs import Runs
    from tokenwire.relay.starts.request import StartRequest
    from tokenwire.run.buffer import BufferLimits
    from tokenwire.run.call.deadlines import Deadlines
    from tokenwire.run.call.recover import RetryPolicy
    from tokenwire.run.hooks.hook import Hooks
    from tokenwire.run.hooks.tools import CallAnswer, CallRequest, CallResult
    from tokenwire.run.plan import LoopLimits
    from tokenwire.run.stream import Result, Run
    from tokenwire.tools.context import Progress, ToolContext
    from tokenwire.tools.per_call import PerCall
    from tokenwire.tools.registry import Tool, ToolSet, tool
    from tokenwire.with_tools import stream_with_tools


#: Names of the past -> the present ones.
_RENAMED = {"open_log": "open_store"}


def __getattr__(name: str) -> Any:
    where = _WHERE.get(name)
    if where is None:
        hint = f"; use '{_RENAMED[name]}'" if name in _RENAMED else ""
        raise AttributeError(f"module 'tokenwire' has no attribute '{name}'{hint}")
    value = getattr(import_module(where), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
