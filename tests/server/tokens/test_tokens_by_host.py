"""Tokens under an application's own login: issued by it, good beside its users, in every host."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from fastapi import Depends, FastAPI, HTTPException
from starlette.applications import Starlette
from starlette.requests import HTTPConnection
from starlette.routing import Mount
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from support.mounted import live_of, serving
from tokenwire.errors import InputError, NotFoundError
from tokenwire.server import Live

asked: list[str] = []


def login(connection: HTTPConnection) -> str:
    """A login that refuses by itself; a token must not come before it."""
    asked.append(connection.scope["path"])
    user = connection.cookies.get("login")
    if user is None:
        raise HTTPException(401, "who are you?")
    return user


def in_fastapi(live: Live) -> Any:
    app = FastAPI(lifespan=live.lifespan)
    app.include_router(live.router(prefix="/chat", user=Depends(login)), prefix="/ai")
    return app


def in_starlette(live: Live) -> Any:
    return Starlette(routes=[Mount("/ai/chat", live.asgi)], lifespan=live.lifespan)


def wrapped(live: Live) -> Any:
    async def host(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 404, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    return live.wrap(host, prefix="/ai/chat", user=login)


def bearer(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"}


@pytest.mark.parametrize("host", [in_fastapi, in_starlette, wrapped])
def test_tokens_are_good_beside_the_login(
    host: Callable[[Live], Any], caplog: pytest.LogCaptureFixture
) -> None:
    live = live_of(user=login)
    lines: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(record.getMessage())  # type: ignore[method-assign]
    with (
        serving(host(live), access_log=True) as url,
        httpx.Client(base_url=url + "/ai/chat", timeout=30, trust_env=False) as client,
        caplog.at_level(logging.INFO, "uvicorn.access"),
    ):
        logging.getLogger("uvicorn.access").addHandler(handler)
        ann, origin = {"cookie": "login=ann", "origin": url}, {"origin": url}
        body = {"prompt": "scenario:text", "thread": "t"}
        run = client.post("/v1/runs", json=body, headers=ann).json()["id"]
        other = client.post("/v1/runs", json={"prompt": "scenario:text"}, headers=ann).json()["id"]
        assert client.get(f"/v1/runs/{run}").status_code == 401
        plain = client.post(f"/v1/runs/{run}/attach-tokens", headers=ann).json()["token"]
        path = "/v1/threads/t/attach-tokens"
        scopes = {"scopes": ["write"]}
        token = client.post(path, json=scopes, headers=ann).json()["token"]
        ticket = client.post(path, json={"ticket": True}, headers=ann).json()["ticket"]
        asked.clear()
        assert client.get(f"/v1/runs/{run}/events", headers=bearer(plain)).status_code == 200
        assert client.get(f"/v1/runs/{run}", headers=bearer(plain)).status_code == 401
        assert client.get(f"/v1/runs/{other}/events", headers=bearer(plain)).status_code == 401
        both = {**bearer(token), "cookie": "login=ann"}
        for headers in (bearer(token), both):
            assert client.get(f"/v1/runs/{run}", headers=headers).status_code == 200
            assert client.get(f"/v1/runs/{other}", headers=headers).status_code == 404
            assert client.get("/v1/threads", headers=headers).status_code == 403
        start = {"prompt": "scenario:text"}
        started = client.post("/v1/runs", json=start, headers={**bearer(token), **origin})
        assert (started.status_code, started.json()["thread"]) == (201, "t")
        away = {**bearer(token), "origin": "http://evil.test"}
        assert client.post("/v1/runs", json=start, headers=away).status_code == 403
        assert client.get(f"/v1/runs/{run}/events?ticket={ticket}").status_code == 200
        assert client.get(f"/v1/runs/{run}/events?ticket={ticket}").status_code == 401
        assert client.get(f"/v1/runs/{run}", headers=bearer(token + "A")).status_code == 401
        wire = url.replace("http", "ws", 1) + "/ai/chat/ws"
        offered: Any = ["tokenwire", f"tokenwire.token.{token}"]
        with connect(wire, proxy=None, origin=url, subprotocols=offered) as socket:  # type: ignore[arg-type]
            socket.send(json.dumps({"op": "follow", "run": run}))
            kinds: list[str] = []
            while "end" not in kinds:
                kinds.append(json.loads(socket.recv(timeout=30))["op"])
            assert "error" not in kinds
        assert asked == [], "a token takes the login's place"
        with pytest.raises(InvalidStatus), connect(wire, proxy=None, origin=url):  # type: ignore[arg-type]
            pass
        assert asked, "and without one the login is asked, for sockets too"
        with connect(wire, proxy=None, additional_headers=ann) as socket:
            socket.send(json.dumps({"op": "ping"}))
            assert json.loads(socket.recv(timeout=30))["op"] == "pong"
    assert any("events" in line for line in lines)
    assert not any(ticket[:40] in line for line in lines), "not in the host's log either"


def test_fastapi_overrides_hold_for_sockets() -> None:
    live = live_of()
    app = FastAPI(lifespan=live.lifespan)
    app.include_router(live.router(prefix="/ai", user=Depends(login)))
    app.dependency_overrides[login] = lambda: "ann"
    with serving(app) as url:
        wire = url.replace("http", "ws", 1) + "/ai/ws"
        with connect(wire, proxy=None, origin=url) as socket:  # type: ignore[arg-type]
            socket.send(json.dumps({"op": "ping"}))
            assert json.loads(socket.recv(timeout=30))["op"] == "pong"
        assert httpx.get(url + "/ai/v1/models").status_code == 200


def test_the_application_issues_and_revokes() -> None:
    live = live_of(user=lambda connection: None)
    app = Starlette(routes=[Mount("/ai", live.asgi)], lifespan=live.lifespan)

    async def main() -> None:
        transport = httpx.ASGITransport(app)
        async with (
            live,
            httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1/ai") as client,
        ):
            response = await live.start("scenario:text", principal="ann", thread="t")
            run = response.headers["tokenwire-run"]

            async def status(token: str, path: str = f"/v1/runs/{run}/info") -> int:
                return (await client.get(path, headers=bearer(token))).status_code

            token = await live.token(run, scopes={"read", "approve"}, ttl=60)
            assert await status(token) == 200
            of_thread = await live.token(thread="t", principal="ann", scopes=["write"])
            assert await status(of_thread) == 200
            foreign = await live.token(thread="t", principal="bob")
            assert await status(foreign) == 404
            info = await live.runs.info(run, principal="ann")
            ticket = await live.token(info, ticket=True)
            path = f"/v1/runs/{run}/events?ticket={ticket}"
            assert (await client.get(path)).status_code == 200
            assert (await client.get(path)).status_code == 401
            await live.revoke(token)
            await live.revoke("access_nothing")
            assert (await status(token), await status(of_thread)) == (401, 200)
            await live.revoke(thread="t", principal="bob")
            assert await status(of_thread) == 200
            await live.revoke(thread="t", principal="ann")
            assert await status(of_thread) == 401
            again = await live.token(run)
            assert await status(again) == 200
            await live.revoke(run=run, principal="ann")
            assert await status(again) == 401
            last = await live.token(run)
            await live.runs.delete(run, principal="ann")
            assert await status(last) == 401
            for call in (
                live.token(),
                live.token(run, thread="t"),
                live.token(thread="no thread"),
                live.token(thread="t", scopes=["all"]),
                live.token(thread="t", ttl=0),
                live.token(thread="t", ttl=43_201),
                live.token(thread="t", refresh=-1),
                live.revoke(),
                live.revoke(token, run=run),
            ):
                with pytest.raises(InputError):
                    await call
            for call in (live.token("u" * 22), live.token(run)):
                with pytest.raises(NotFoundError):
                    await call

    asyncio.run(main())
