"""A Litestar application with sessions and CORS, and the server mounted under ``/ai``."""

from __future__ import annotations

from typing import Any

from litestar import Litestar, Request, asgi, get, post
from litestar.config.cors import CORSConfig
from litestar.middleware.session.server_side import ServerSideSessionConfig
from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection

from support.hosts.serving import FRIEND, live_of, run


def who(connection: HTTPConnection) -> str | None:
    name = connection.session.get("user")
    if name == "barred":
        raise HTTPException(403, "you are barred")
    return name


live = live_of(user=who, check_origin=False)


@post("/login", status_code=204)
async def login(request: Request[Any, Any, Any], name: str) -> None:
    request.set_session({"user": name})


@get("/own")
async def own() -> dict[str, bool]:
    return {"own": True}


app = Litestar(
    [login, own, asgi("/ai", is_mount=True, copy_scope=True)(live.asgi)],
    lifespan=[live.lifespan],
    middleware=[ServerSideSessionConfig().middleware],
    cors_config=CORSConfig(allow_origins=[FRIEND], allow_credentials=True),
)

if __name__ == "__main__":
    run(app)
