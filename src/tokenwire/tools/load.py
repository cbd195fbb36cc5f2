"""Tools by name, for command lines and settings: ``MODULE:NAME``, ``demo``, ``mcp:COMMAND``.

Always true: only names from the command line or the settings are imported; a name without tools is
an error that names it.
"""

from __future__ import annotations

import importlib
from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from tokenwire.errors import ConfigError
from tokenwire.events.names import names_of
from tokenwire.tools.registry import Tool, ToolSet

__all__ = ["open_tools"]


@asynccontextmanager
async def open_tools(names: str | Iterable[str]) -> AsyncIterator[ToolSet]:
    """All tools of these names, while the ``async with`` lasts.

    ``demo``: the demo tools. ``MODULE:NAME``: a tool, a function, or a list of them.
    ``mcp:COMMAND`` and ``mcp:URL``: the tools of an MCP server.
    """
    async with AsyncExitStack() as stack:
        tools = ToolSet()
        for name in names_of(names, "tools"):
            if name.startswith("mcp:"):
                from tokenwire.tools.mcp import mcp_tools

                tools = tools + await stack.enter_async_context(mcp_tools(name[4:]))
            else:
                tools = tools + _named(name)
        yield tools


def _named(name: str) -> ToolSet:
    if name == "demo":
        from tokenwire.tools.demo import demo_tools

        return demo_tools()
    module, _, attribute = name.partition(":")
    if not module or not attribute:
        raise ConfigError(f"invalid tool {name!r}: use MODULE:NAME, demo, mcp:COMMAND or mcp:URL")
    try:
        value: Any = importlib.import_module(module)
        for step in attribute.split("."):
            value = getattr(value, step)
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"cannot load the tool {name!r}: {error}") from error
    if isinstance(value, ToolSet):
        return value
    if isinstance(value, Tool) or (callable(value) and not isinstance(value, type)):
        return ToolSet([value])
    if isinstance(value, list | tuple):
        return ToolSet(value)
    raise ConfigError(f"{name!r} is neither a tool nor a list of tools: {type(value).__name__}")
