"""An MCP server for the tests: over stdio, or with a port number over streamable HTTP."""

from __future__ import annotations

import sys

from mcp.server import MCPServer
from mcp.server.mcpserver import Context
from mcp.server.mcpserver.exceptions import ToolError

server = MCPServer("tests", log_level="ERROR")


@server.tool()
def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


@server.tool()
def context(context: str) -> str:
    """A parameter with the name that our own context has."""
    return f"got {context}"


@server.tool()
def fail() -> str:
    """Always fails."""
    raise ToolError("the disk is on fire")


@server.tool()
async def count(to: int, ctx: Context) -> str:
    """Counts and reports progress."""
    for number in range(to):
        await ctx.report_progress(number + 1, to, f"at {number + 1}")
    return "counted"


if __name__ == "__main__":
    if len(sys.argv) > 1:
        server.run("streamable-http", host="127.0.0.1", port=int(sys.argv[1]))
    else:
        server.run("stdio")
