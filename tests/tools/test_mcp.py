"""Tools of true MCP servers, over stdio, HTTP and in process."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any

import pytest

from support.free_ports import free_port
from tokenwire.errors import ConfigError
from tokenwire.events.model import Event, ToolError, ToolProgress, ToolResult
from tokenwire.tools import ToolCall, ToolSet, execute
from tokenwire.tools.mcp import mcp_tools

pytest.importorskip("mcp", reason="the package 'mcp' is not installed")

SERVER = [sys.executable, str(Path(__file__).with_name("mcp_server.py"))]


def call(name: str, **arguments: Any) -> ToolCall:
    return ToolCall(call_id=f"call_{name}", name=name, part=0, arguments=arguments)


async def use_every_tool(tools: ToolSet) -> None:
    events: list[Event] = []
    assert tools.names == ["add", "context", "fail", "count"]
    added = await execute(tools, call("add", a=2, b=40), emit=events.append)
    assert isinstance(added, ToolResult)
    assert added.content == 42
    named = await execute(tools, call("context", context="it"), emit=events.append)
    assert isinstance(named, ToolResult)
    assert named.content == "got it"
    failed = await execute(tools, call("fail"), emit=events.append)
    assert isinstance(failed, ToolError)
    assert failed.code == "exception"
    assert "disk is on fire" in failed.message
    counted = await execute(tools, call("count", to=3), emit=events.append)
    assert isinstance(counted, ToolResult)
    assert counted.content == "counted"
    reports = [e for e in events if isinstance(e, ToolProgress)]
    assert [r.message for r in reports][-1] == "at 3"
    assert reports[-1].fraction == 1.0
    wrong = await execute(tools, call("add", a="two", b=1), emit=events.append)
    assert isinstance(wrong, ToolError)
    assert wrong.code == "invalid_arguments"


def test_a_server_started_by_a_command() -> None:
    async def main() -> None:
        async with mcp_tools(SERVER) as tools:
            await use_every_tool(tools)

    asyncio.run(main())


def test_a_server_reached_by_its_url() -> None:
    async def main() -> None:
        port = free_port()
        process = await asyncio.create_subprocess_exec(*SERVER, str(port))
        try:
            async with asyncio.timeout(60):
                while True:
                    try:
                        _, writer = await asyncio.open_connection("127.0.0.1", port)
                        writer.close()
                        break
                    except OSError:
                        await asyncio.sleep(0.05)
            async with mcp_tools(f"http://127.0.0.1:{port}/mcp", headers={"x-team": "a"}) as tools:
                await use_every_tool(tools)
        finally:
            process.terminate()
            await process.wait()

    asyncio.run(main())


def test_a_server_in_this_process_with_prefix_and_choice() -> None:
    async def main() -> None:
        from mcp.server import MCPServer

        server = MCPServer("inner")

        @server.tool(name="say.it")
        def say(word: str) -> str:
            return word

        @server.tool()
        def other() -> str:
            return ""

        async with mcp_tools(server, prefix="in_", only={"say.it"}, needs_approval=True) as tools:
            assert tools.names == ["in_say_it"]
            found = tools.get("in_say_it")
            assert found is not None
            assert found.asks({})
            events: list[Event] = []
            outcome = await execute(tools, call("in_say_it", word="x"), emit=events.append)
            assert isinstance(outcome, ToolResult)
            assert outcome.content == "x"

    asyncio.run(main())


@pytest.mark.parametrize(
    "server", ["", [sys.executable, "-c", "pass"], "http://127.0.0.1:9/mcp", ["/no/such/program"]]
)
def test_no_server_is_a_clear_error(server: Any) -> None:
    async def main() -> None:
        async with mcp_tools(server, connect_timeout=20):
            raise AssertionError("connected to nothing")

    with pytest.raises(ConfigError, match="MCP server"):
        asyncio.run(main())


def test_a_server_that_dies_is_a_tool_error() -> None:
    async def main() -> None:
        program = (
            "import os\n"
            "from mcp.server import MCPServer\n"
            "server = MCPServer('dying', log_level='ERROR')\n"
            "@server.tool()\n"
            "def die() -> str:\n"
            "    os._exit(3)\n"
            "server.run('stdio')\n"
        )
        async with mcp_tools([sys.executable, "-c", program], timeout=5) as tools:
            outcome = await execute(tools, call("die"), emit=lambda event: None)
            assert isinstance(outcome, ToolError)
            assert outcome.code in ("exception", "timeout")

    asyncio.run(main())
