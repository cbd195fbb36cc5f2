"""The tools of an MCP server as ours: started by a command, reached by a URL, or in this process.

Always true: leaving the ``async with`` ends the server that we started; a server's hints
about itself count only with ``trust_hints``; a broken server is a tool error, never a crash.

Needs the package ``mcp`` (``pip install 'tokenwire[mcp]'``); it is imported when first used.
"""

from __future__ import annotations

import asyncio
import logging
import re
import shlex
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, Final

from tokenwire.errors import ConfigError, ToolError
from tokenwire.events.names import names_of
from tokenwire.tools.context import ToolContext
from tokenwire.tools.json_schema import check_schema
from tokenwire.tools.registry import Approval, Tool, ToolSet

__all__ = ["mcp_tools"]

_log = logging.getLogger("tokenwire.tools")

#: Most tools of one server; no model could choose among more.
_MAX_TOOLS: Final = 500
_BAD_CHARACTERS: Final = re.compile(r"[^A-Za-z0-9_-]")


@asynccontextmanager
async def mcp_tools(
    server: Any,
    *,
    prefix: str = "",
    only: str | Iterable[str] | None = None,
    needs_approval: Approval = False,
    trust_hints: bool = False,
    timeout: float = 30.0,
    connect_timeout: float = 10.0,
    env: Mapping[str, str] | None = None,
    headers: Mapping[str, str] | None = None,
) -> AsyncIterator[ToolSet]:
    """The tools of an MCP server, while the ``async with`` lasts.

    ``server``: a command line (``"python server.py"`` or a list, spoken to over stdio), a URL
    (streamable HTTP), or a server object of the ``mcp`` package. ``prefix`` is put before every
    name; ``only`` picks tools by their own names. With ``trust_hints`` a tool that calls itself
    destructive needs approval, and one that calls itself read-only or idempotent may be started
    again after a crash. ``env`` and ``headers`` go to the server; nothing else of ours does.
    """
    ready: asyncio.Future[ToolSet] = asyncio.get_running_loop().create_future()
    picked = None if only is None else frozenset(names_of(only, "only"))
    leave = asyncio.Event()

    async def own() -> None:
        """The client's task groups must be left by the task that entered them; this one does."""
        async with AsyncExitStack() as stack:
            client = await _connect(stack, server, env, headers, connect_timeout)
            tools: list[Tool] = []
            for listed in await _listed(client, connect_timeout):
                if picked is None or listed.name in picked:
                    options = _options(listed, needs_approval, trust_hints)
                    tools.append(_tool(client, listed, prefix, timeout, options))
            ready.set_result(ToolSet(tools))
            await leave.wait()

    owner = asyncio.create_task(own())
    try:
        await asyncio.wait({owner, ready}, return_when=asyncio.FIRST_COMPLETED)
        if not ready.done():
            ready.cancel()
            await owner  # raises why there are no tools
        yield ready.result()
    finally:
        if not ready.done():
            owner.cancel()
        leave.set()
        await asyncio.wait({owner})
        has_tools = ready.done() and not ready.cancelled()
        if has_tools and not owner.cancelled() and owner.exception() is not None:
            _log.warning("an MCP server did not end well: %s", _name(owner.exception()))


async def _connect(
    stack: AsyncExitStack,
    server: Any,
    env: Mapping[str, str] | None,
    headers: Mapping[str, str] | None,
    seconds: float,
) -> Any:
    try:
        from mcp import Client
    except ImportError as error:
        raise ConfigError(
            "tools of MCP servers need the package 'mcp': pip install 'tokenwire[mcp]'"
        ) from error
    client = Client(await _transport(stack, server, env, headers))
    try:
        async with asyncio.timeout(seconds):
            return await stack.enter_async_context(client)
    except Exception as error:
        server_name = server if isinstance(server, str) else type(server).__name__
        raise ConfigError(
            f"no MCP server answers at {_shown(server_name)!r}: {_name(error)}"
        ) from error


async def _transport(
    stack: AsyncExitStack,
    server: Any,
    env: Mapping[str, str] | None,
    headers: Mapping[str, str] | None,
) -> Any:
    from mcp import StdioServerParameters

    if isinstance(server, str) and server.startswith(("http://", "https://")):
        if not headers:
            return server
        import httpx2  # what 'mcp' itself depends on
        from mcp.client.streamable_http import streamable_http_client

        http = await stack.enter_async_context(httpx2.AsyncClient(headers=dict(headers)))
        return streamable_http_client(server, http_client=http)
    if not isinstance(server, str | list | tuple):
        return server
    words = shlex.split(server) if isinstance(server, str) else [str(word) for word in server]
    if not words:
        raise ConfigError("the MCP server's command or URL is empty")
    return StdioServerParameters(command=words[0], args=words[1:], env=dict(env) if env else None)


async def _listed(client: Any, seconds: float) -> list[Any]:
    try:
        async with asyncio.timeout(seconds):
            return await _list(client)
    except Exception as error:
        raise ConfigError(f"the MCP server did not list its tools: {_name(error)}") from error


async def _list(client: Any) -> list[Any]:
    tools: list[Any] = []
    cursor: str | None = None
    while len(tools) < _MAX_TOOLS:
        page = await client.list_tools(cursor=cursor)
        tools.extend(page.tools)
        cursor = page.next_cursor
        if not cursor:
            break
    return tools[:_MAX_TOOLS]


def _options(listed: Any, needs_approval: Approval, trust_hints: bool) -> dict[str, Any]:
    hints = listed.annotations if trust_hints else None
    if hints is None:
        return {"needs_approval": needs_approval}
    return {
        "needs_approval": needs_approval or hints.destructive_hint is True,
        "idempotent": bool(hints.idempotent_hint or hints.read_only_hint),
    }


def _tool(client: Any, listed: Any, prefix: str, timeout: float, options: dict[str, Any]) -> Tool:
    own_name = listed.name

    async def call(context: ToolContext, arguments: dict[str, Any]) -> Any:
        async def report(progress: float, total: float | None, message: str | None) -> None:
            context.progress(progress / total if total else None, message)

        result = await client.call_tool(
            own_name, arguments, read_timeout_seconds=timeout, progress_callback=report
        )
        return _content(result)

    schema = (
        listed.input_schema if check_schema(listed.input_schema) is None else {"type": "object"}
    )
    tool = Tool.from_schema(
        _BAD_CHARACTERS.sub("_", prefix + own_name)[:64],
        schema,
        call,
        description=listed.description or listed.title or "",
        timeout=timeout,
        **options,
    )
    # The server's own parameters stay in one argument, so that one of them may be called 'context'.
    tool.signature.context = "context"
    tool.signature.wrap("arguments")
    return tool


def _content(result: Any) -> Any:
    """What the server answered, as a value for the model. Raises `ToolError` when it failed."""
    blocks = [block.model_dump(mode="json", exclude_none=True) for block in result.content]
    texts = [block["text"] for block in blocks if block.get("type") == "text"]
    if result.is_error:
        raise ToolError("\n".join(texts) or "the tool failed without a message")
    if result.structured_content is not None:
        content = result.structured_content
        # Servers wrap a plain value, because the protocol knows only objects there.
        return content["result"] if set(content) == {"result"} else content
    return "\n".join(texts) if len(texts) == len(blocks) else blocks


def _shown(server: str) -> str:
    """Without what may be a secret in it."""
    return re.sub(r"//[^/@]*@", "//", server).split("?")[0][:200]


def _name(error: BaseException | None) -> str:
    """The innermost reason; task groups wrap it."""
    while isinstance(error, BaseExceptionGroup) and error.exceptions:
        error = error.exceptions[0]
    if isinstance(error, TimeoutError):
        return "no answer in time"
    return f"{type(error).__name__}: {error}"[:300]
