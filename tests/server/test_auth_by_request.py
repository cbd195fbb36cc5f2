"""`Auth`: keys, checks of credentials, and whoever an application recognizes by the request."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial
from typing import Any

import httpx
import pytest
from fastapi import Depends, FastAPI
from starlette.applications import Starlette
from starlette.requests import HTTPConnection
from starlette.routing import Mount
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from support.mounted import live_of, me, me_later, serving
from support.server import simulator
from tokenwire.providers.registry import Registry
from tokenwire.server import Auth, create_app
from tokenwire.server.settings import Settings

KEY = "carls-key-which-is-long"


def ticket(credential: str) -> str | None:
    return "tess" if credential == "ticket-77" else None


def broken(connection: HTTPConnection) -> str:
    raise LookupError("swordfish")


def alone(auth: Auth) -> Any:
    registry = Registry(demo_url=simulator().server.url + "/v1", env={})
    return create_app(Settings(model=["demo"], store="memory:"), registry=registry, auth=auth)


def mounted(auth: Auth) -> Any:
    live = live_of(user=auth)
    return Starlette(routes=[Mount("/", live.asgi)], lifespan=live.lifespan)


def included(auth: Auth) -> Any:
    live = live_of()
    app = FastAPI(lifespan=live.lifespan)
    app.include_router(live.router(user=Depends(auth)))
    return app


HOSTS = {"alone": alone, "mounted": mounted, "included": included}


@pytest.fixture(scope="module", params=HOSTS)
def url(request: pytest.FixtureRequest) -> Iterator[str]:
    auth = Auth([f"carl:{KEY}"], verify=ticket, user=me_later)
    with serving(HOSTS[request.param](auth)) as address:
        yield address


def mine(url: str, run: str, **headers: str) -> int:
    return httpx.get(f"{url}/v1/runs/{run}/info", headers=headers, timeout=20).status_code


CARL = {"authorization": f"Bearer {KEY}"}
TESS = {"x-api-key": "ticket-77"}
ANN = {"cookie": "login=ann"}
#: A client that must have some key: it is the login that counts.
ANN_WITH_A_KEY = {**ANN, "authorization": "Bearer unused"}


@pytest.mark.parametrize("sender", [CARL, TESS, ANN, ANN_WITH_A_KEY])
def test_each_way_names_its_own_principal(url: str, sender: dict[str, str]) -> None:
    made = httpx.post(f"{url}/v1/runs", json={"prompt": "x"}, headers=sender, timeout=20)
    assert made.status_code == 201, made.text
    run = made.json()["id"]
    is_ann = "cookie" in sender
    for other in (CARL, TESS, ANN, ANN_WITH_A_KEY):
        same = other is sender or (is_ann and "cookie" in other)
        assert mine(url, run, **other) == (200 if same else 404)


@pytest.mark.parametrize("sender", [{}, {"authorization": "Bearer wrong"}, {"cookie": "login="}])
def test_nobody_is_refused(url: str, sender: dict[str, str]) -> None:
    answer = httpx.get(f"{url}/v1/models", headers=sender)
    assert answer.status_code == (500 if "login=" in str(sender) else 401)


def test_a_key_comes_before_a_cookie(url: str) -> None:
    made = httpx.post(f"{url}/v1/runs", json={"prompt": "x"}, headers={**ANN, **CARL}, timeout=20)
    assert mine(url, made.json()["id"], **CARL) == 200
    assert mine(url, made.json()["id"], **ANN) == 404


@pytest.mark.parametrize("sender", [CARL, TESS, ANN, ANN_WITH_A_KEY])
def test_a_socket_has_its_principal(url: str, sender: dict[str, str]) -> None:
    with connect(url.replace("http", "ws") + "/ws", additional_headers=sender) as socket:
        socket.send(json.dumps({"op": "start", "id": 1, "request": {"prompt": "scenario:text"}}))
        assert "error" not in json.loads(socket.recv(timeout=20))


@pytest.mark.parametrize("host", HOSTS)
def test_a_login_alone(host: str) -> None:
    with serving(HOSTS[host](Auth(user=me))) as url:
        assert httpx.get(f"{url}/v1/models", headers=ANN).status_code == 200
        answer = httpx.get(f"{url}/v1/models")
        assert answer.status_code == 401
        assert "sign in first" in answer.text
        with pytest.raises((InvalidStatus, ConnectionClosed)):
            with connect(url.replace("http", "ws") + "/ws") as socket:
                socket.recv(timeout=20)


@pytest.mark.parametrize("host", HOSTS)
@pytest.mark.parametrize("user", [broken, partial(broken)])
def test_a_login_that_raises_lets_nobody_in(host: str, user: Any) -> None:
    with serving(HOSTS[host](Auth([f"carl:{KEY}"], user=user))) as url:
        assert httpx.get(f"{url}/v1/models", headers=CARL).status_code == 200
        answer = httpx.get(f"{url}/v1/models", headers=ANN)
        assert answer.status_code >= 500
        assert "swordfish" not in answer.text


def test_wrong_keys_are_counted_and_logins_are_not() -> None:
    with serving(alone(Auth([f"carl:{KEY}"], user=me))) as url:
        wrong = {"authorization": "Bearer wrong"}
        seen = [httpx.get(f"{url}/v1/models", headers=wrong).status_code for _ in range(60)]
        assert seen[0] == 401
        assert seen[-1] == 429
        assert httpx.get(f"{url}/v1/models", headers=ANN_WITH_A_KEY).status_code == 200
        assert httpx.get(f"{url}/v1/models", headers=CARL).status_code == 200
