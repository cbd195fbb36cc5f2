"""Applications that hold the whole server under a prefix, behind a login of theirs."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn
from fastapi import Depends, FastAPI
from starlette.applications import Starlette
from starlette.requests import HTTPConnection
from starlette.routing import Mount

from support.free_ports import free_port
from support.server import simulator
from tokenwire.providers.registry import Registry
from tokenwire.server import Live
from tokenwire.server.settings import Settings
from tokenwire.tools.demo import demo_tools


def me(connection: HTTPConnection) -> str | None:
    """The login of these tests: a cookie that names its user."""
    return connection.cookies.get("login")


async def me_later(connection: HTTPConnection) -> str | None:
    await asyncio.sleep(0)
    return me(connection)


def live_of(**more: Any) -> Live:
    more.setdefault("tools", demo_tools())
    more.setdefault("settings", Settings(starts_per_minute=1000, durable_streams="readwrite"))
    registry = Registry(demo_url=simulator().server.url + "/v1", env={})
    return Live("memory:", models=["demo"], registry=registry, **more)


def everybody(connection: HTTPConnection) -> str:
    """The login of an application whose clients send no cookie."""
    return "ann"


def fastapi_app(user: Any = me_later) -> Any:
    live = live_of()
    app = FastAPI(lifespan=live.lifespan)
    app.include_router(live.router(prefix="/ai", user=Depends(user)))

    @app.get("/own")
    async def own() -> dict[str, bool]:
        return {"own": True}

    return app


def fastapi_below_more(user: Any = me) -> Any:
    live = live_of()
    app = FastAPI(lifespan=live.lifespan)
    app.include_router(live.router(prefix="/chat", user=user), prefix="/ai")

    async def behind(scope: Any, receive: Any, send: Any) -> None:
        await app({**scope, "root_path": "/behind"}, receive, send)

    return behind


def starlette_app(user: Any = me_later) -> Any:
    live = live_of(user=user)
    return Starlette(routes=[Mount("/ai", live.asgi)], lifespan=live.lifespan)


def wrapped_app(user: Any = me) -> Any:
    async def host(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            raise ValueError(f"this host can only handle http, not {scope['type']}")
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"the host's"})

    return live_of().wrap(host, prefix="/ai", user=user)


HOSTS: dict[str, tuple[Callable[..., Any], str]] = {
    "fastapi": (fastapi_app, "/ai"),
    "fastapi, prefix in prefix": (fastapi_below_more, "/ai/chat"),
    "starlette": (starlette_app, "/ai"),
    "wrapped": (wrapped_app, "/ai"),
}


@contextmanager
def serving(app: Any, ws: Any = "websockets-sansio", **more: Any) -> Iterator[str]:
    """``app`` under uvicorn on a free port: its address."""
    port = free_port()
    config = uvicorn.Config(app, port=port, log_level="warning", ws=ws, **more)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    for _ in range(500):
        if server.started:
            break
        time.sleep(0.02)
    assert server.started
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join(30)
        assert not thread.is_alive()
