"""A Quart application with its signed cookie, and the server under ``/ai`` around it."""

from __future__ import annotations

from typing import Any

from itsdangerous import BadSignature
from quart import Quart, request, session
from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection

from support.hosts.serving import live_of, run

host = Quart(__name__)
host.secret_key = "of a test"


@host.post("/login")
async def login() -> tuple[str, int]:
    session["user"] = request.args["name"]
    return "", 204


@host.get("/own")
async def own() -> dict[str, bool]:
    return {"own": True}


def who(connection: HTTPConnection) -> str | None:
    serializer: Any = host.session_interface.get_signing_serializer(host)
    try:
        name = serializer.loads(connection.cookies.get("session", "")).get("user")
    except BadSignature:
        return None
    if name == "barred":
        raise HTTPException(403, "you are barred")
    return name


app = live_of().wrap(host, prefix="/ai", user=who)

if __name__ == "__main__":
    run(app)
