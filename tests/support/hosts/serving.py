"""Serve a host's application twice: as it is, and under the ``root_path`` of a proxy that takes a
prefix off. Prints the two ports; ends with its standard input.

Always true: both share one process and one lifespan.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

import uvicorn

from tokenwire.providers.registry import Registry
from tokenwire.server import Live
from tokenwire.server.settings import Settings
from tokenwire.tools.demo import demo_tools

__all__ = ["FRIEND", "live_of", "run"]

#: The origin whose pages the hosts allow.
FRIEND = "http://friend.example"


def live_of(**more: Any) -> Live:
    """The server inside, whose demo model is the simulator at the address of the first argument."""
    return Live(
        "memory:",
        models=["demo"],
        registry=Registry(demo_url=sys.argv[1], env={}),
        tools=demo_tools(),
        settings=Settings(starts_per_minute=1000, runs_per_principal=100),
        **more,
    )


def run(app: Any) -> None:
    """Serve ``app`` until standard input ends."""
    asyncio.run(_main(app))


async def _main(app: Any) -> None:
    servers = [
        uvicorn.Server(uvicorn.Config(app, port=0, log_level="warning", **more))
        for more in ({"ws": "websockets-sansio"}, {"root_path": "/team", "lifespan": "off"})
    ]
    tasks = []
    for server in servers:
        tasks.append(asyncio.create_task(server._serve()))
        while not server.started:
            await asyncio.sleep(0.01)
            assert not tasks[-1].done(), "the host did not start"
    ports = [server.servers[0].sockets[0].getsockname()[1] for server in servers]
    print(json.dumps(ports), flush=True)
    await asyncio.to_thread(sys.stdin.read)
    for server, task in reversed(list(zip(servers, tasks, strict=True))):
        server.should_exit = True
        await task
