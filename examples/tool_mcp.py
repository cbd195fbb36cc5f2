"""All tools of an MCP server; this file is its own server when started with 'serve'."""

import asyncio
import sys

import tokenwire
from tokenwire.testing import ScriptedModel, call
from tokenwire.tools.mcp import mcp_tools


def serve() -> None:
    from mcp.server import MCPServer

    server = MCPServer("example", log_level="ERROR")

    @server.tool()
    def add(a: int, b: int) -> int:
        """Add two numbers."""
        return a + b

    server.run("stdio")


async def main() -> None:
    # A command, or the URL of a server over HTTP.
    async with mcp_tools([sys.executable, __file__, "serve"]) as tools:
        print("tools:", tools.names)
        model = ScriptedModel([call("add", {"a": 2, "b": 40})], ["It is 42."])
        async with tokenwire.stream("2 + 40?", model=model, tools=tools) as run:
            result = await run.result()
        print("the server answered", result.history[1].parts[0].content)
        print(result.text)


if __name__ == "__main__":
    serve() if sys.argv[1:] == ["serve"] else asyncio.run(main())
