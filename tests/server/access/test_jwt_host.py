"""Tokens of an issuer in an application around the server: what they opened ends with them."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import httpx
import pytest
from fastapi import Depends, FastAPI
from starlette.applications import Starlette
from starlette.requests import HTTPConnection, Request
from starlette.routing import Mount
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from server.access.test_jwt_server import SLOW, SOCKETS, bearer
from support.issuer import AUDIENCE, Issuer, issuer
from support.mounted import live_of, serving
from tokenwire import Principal
from tokenwire.server import Auth, JwtIssuer, Live
from tokenwire.server.edge import auth as auth_module
from tokenwire.server.settings import Settings

#: The answers are not waited for when a host stops.
QUICK = Settings(graceful_stop=0.5)


@pytest.fixture(scope="module")
def provider() -> Iterator[Issuer]:
    with issuer() as made:
        yield made


def mounted(auth: Auth) -> tuple[Live, Any]:
    live = live_of(user=auth, settings=QUICK)
    return live, Starlette(routes=[Mount("/ai", live.asgi)], lifespan=live.lifespan)


def included(auth: Auth) -> tuple[Live, Any]:
    live = live_of(settings=QUICK)
    app = FastAPI(lifespan=live.lifespan)
    app.include_router(live.router(prefix="/ai", user=Depends(auth)))

    @app.get("/ai/own")
    async def own(run: str, request: Request) -> Any:
        who = await auth(request)
        assert who is not None
        return await live.resume(run, principal=who)

    return live, app


def wrapped(auth: Auth) -> tuple[Live, Any]:
    """With a function of the application's own, which asks the `Auth` and names somebody else."""
    live = live_of(settings=QUICK)

    async def user(connection: HTTPConnection) -> Principal | None:
        who = await auth(connection)
        return Principal(f"user-{who.id}", who.tenant) if who is not None else None

    async def host(scope: Any, receive: Any, send: Any) -> None:
        raise ValueError(f"this host has no {scope['type']}")

    return live, live.wrap(host, prefix="/ai", user=user)


@pytest.mark.parametrize("host", [mounted, included, wrapped])
def test_streams_and_sockets_end_with_their_token(
    provider: Issuer, monkeypatch: pytest.MonkeyPatch, host: Any
) -> None:
    """The answers take far longer than the test waits: only the token's end ends them."""
    monkeypatch.setattr(auth_module, "RECHECK_SECONDS", 0.2)
    jwt = JwtIssuer(provider.url, audience=AUDIENCE)
    live, app = host(Auth(jwt=jwt))
    live.server.state.recheck._every = 0.05
    with (
        serving(app) as url,
        httpx.Client(timeout=60, trust_env=False, headers=bearer(provider.token())) as client,
        ExitStack() as opened,
    ):
        place = url + "/ai"
        made = client.post(f"{place}/v1/runs", json={"prompt": SLOW})
        assert made.status_code == 201, made.text
        run = made.json()["id"]
        issued = client.post(f"{place}/v1/runs/{run}/attach-tokens", json={"ttl": 9000}).json()
        assert 3000 < issued["expires_in"] <= 3660  # never longer than the token that asked
        wires = []
        for path, first in SOCKETS.items():
            address = place.replace("http", "ws", 1) + path
            headers = {"authorization": client.headers["authorization"]}
            wire = opened.enter_context(connect(address, proxy=None, additional_headers=headers))
            wires.append(wire)
            wire.send(json.dumps(first))
            wire.recv(timeout=60)
        paths = [f"/v1/runs/{run}/events"]
        if host is included:
            paths.append(f"/own?run={run}")
        answers = [opened.enter_context(client.stream("GET", place + path)) for path in paths]
        pieces = [answer.iter_bytes() for answer in answers]
        begun = [next(piece) for piece in pieces]
        jwt._clock = lambda: time.time() + 4000
        for first, rest in zip(begun, pieces, strict=True):
            text = first + b"".join(rest)
            assert b'"reason":"revoked"' in text
            assert b"run-end" not in text
        for wire in wires:
            with pytest.raises(ConnectionClosed) as closed:
                while True:
                    wire.recv(timeout=60)
            assert closed.value.rcvd is not None
            assert closed.value.rcvd.code == 1008
