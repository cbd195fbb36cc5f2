"""The login of an application around the server: ways past it, and what it does when it fails."""

from __future__ import annotations

import http.client
import json
import logging
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from fastapi import Depends, FastAPI, HTTPException
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import HTTPConnection
from starlette.routing import Mount
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from support.mounted import HOSTS, live_of, me, serving
from tokenwire.server import Auth
from tokenwire.server.settings import Settings

FRIEND = "http://friend.example"


@pytest.fixture(scope="module", params=HOSTS)
def place(request: pytest.FixtureRequest) -> Iterator[str]:
    make, prefix = HOSTS[request.param]
    with serving(make(me)) as url:
        yield url + prefix


def raw(place: str, method: str, path: str, **headers: str) -> tuple[int, bytes]:
    """One request whose path is sent as it stands."""
    line = http.client.HTTPConnection(urlsplit(place).netloc, timeout=20)
    try:
        line.request(method, urlsplit(place).path + path, headers=headers)
        answer = line.getresponse()
        return answer.status, answer.read()
    finally:
        line.close()


@pytest.mark.parametrize("method", ["GET", "POST", "HEAD", "OPTIONS", "DELETE", "PUT"])
@pytest.mark.parametrize(
    "path",
    [
        "/v1/runs",
        "//v1/runs",
        "/v1//threads",
        "/%76%31/threads",
        "/assets/%2e%2e/v1/threads",
        "/assets/../v1/threads",
        "/assets/..%2fv1%2fthreads",
        "/livez/../v1/threads",
        "/livez%2f..%2fv1/threads",
        "/%2e%2e/own",
        "/ai/assets/v1/threads",
        "/v1/threads?x=/assets/",
        "/v1/models/a/assets/b",
        "/ds/v1/stream/a/assets/b",
        "/v1/threads/%2e%2e",
        "/dash/",
        "/v1/session",
        "/metrics",
    ],
)
def test_no_path_leads_past_the_login(place: str, method: str, path: str) -> None:
    status, body = raw(place, method, path)
    assert status in (401, 404, 405, 415), body
    for name in ("X-Forwarded-Prefix", "X-Script-Name", "Root-Path", "X-Original-URL"):
        status, body = raw(place, method, path, **{name: "/ai/assets"})
        assert status in (401, 404, 405, 415), (name, body)


def test_a_route_answers_head_too(place: str) -> None:
    with httpx.Client(cookies={"login": "ann"}) as ann:
        answer = ann.head(f"{place}/v1/models")
        assert (answer.status_code, answer.content) == (200, b"")


def test_a_parameter_may_hold_the_name_of_its_own_route(place: str) -> None:
    with httpx.Client(cookies={"login": "ann"}, timeout=20) as ann:
        stream = f"{place}/ds/v1/stream"
        for name in ("b", "a/ds/v1/stream/b"):
            made = ann.put(f"{stream}/{name}", content=name, headers={"content-type": "text/plain"})
            assert made.status_code == 201, made.text
            origin, prefix = place.split("/ai")
            shown = f"/ai{prefix}/ds/v1/stream/{name}"
            assert made.headers["location"].startswith(origin)
            assert made.headers["location"].endswith(shown)
        assert ann.get(f"{stream}/b").text == "b"
        assert ann.get(f"{stream}/a/ds/v1/stream/b").text == "a/ds/v1/stream/b"
        wrong = ann.get(f"{place}/v1/models/x/v1/models/demo")
        assert wrong.status_code == 404
        source = urlsplit(made.headers["location"]).path
        fork = {"stream-forked-from": source, "content-type": "text/plain"}
        assert ann.put(f"{stream}/c", headers=fork).status_code == 201
        assert ann.get(f"{stream}/c").text == "a/ds/v1/stream/b"


def test_where_an_answer_of_durable_streams_is(place: str) -> None:
    with httpx.Client(cookies={"login": "ann"}, timeout=20) as ann:
        part = {"type": "text", "text": "scenario:text"}
        message = {"id": "m1", "role": "user", "parts": [part]}
        made = ann.post(f"{place}/ds/chat", json={"id": "c-1", "messages": [message]})
        address = urlsplit(made.json()["streamUrl"]).path.removeprefix("/behind")
        origin = place.split("/ai")[0]
        assert ann.get(origin + address).status_code == 200


def cors_hosts(**more: Any) -> dict[str, Any]:
    live = live_of(user=me, **more)
    mounted = Starlette(routes=[Mount("/ai", live.asgi)], lifespan=live.lifespan)
    other = live_of(**more)
    included = FastAPI(lifespan=other.lifespan)
    included.include_router(other.router(prefix="/ai", user=Depends(me)))
    return {"mounted": mounted, "included": included}


PREFLIGHT = {"origin": FRIEND, "access-control-request-method": "POST"}


@pytest.mark.parametrize("kind", ["mounted", "included"])
def test_a_page_of_an_allowed_origin(kind: str) -> None:
    settings = Settings(cors_origin=[FRIEND])
    with serving(cors_hosts(settings=settings)[kind]) as url:
        answer = httpx.options(f"{url}/ai/v1/runs", headers=PREFLIGHT)  # without a login
        assert answer.status_code == 204, answer.text
        assert answer.headers["access-control-allow-origin"] == FRIEND
        foreign = {**PREFLIGHT, "origin": "http://evil.example"}
        answer = httpx.options(f"{url}/ai/v1/runs", headers=foreign)
        assert answer.status_code == 401
        assert "access-control-allow-origin" not in answer.headers
        with httpx.Client(cookies={"login": "ann"}, headers={"origin": FRIEND}) as ann:
            made = ann.post(f"{url}/ai/v1/runs", json={"prompt": "x"})
            assert made.status_code == 201
            assert made.headers["access-control-allow-origin"] == FRIEND


def barred(connection: HTTPConnection) -> str | None:
    """A login that refuses in each way that there is."""
    kind = connection.headers.get("x-kind")
    if kind == "raises":
        raise HTTPException(403, "you are barred", {"x-barred": "yes"})
    return "a\nb" if kind == "no name" else None


def refusing_apps() -> dict[str, Any]:
    settings = Settings(cors_origin=[FRIEND])
    mounted = live_of(user=barred, settings=settings)
    starlette = Starlette(routes=[Mount("/ai", mounted.asgi)], lifespan=mounted.lifespan)
    included = live_of(settings=settings)
    fastapi = FastAPI(lifespan=included.lifespan)
    fastapi.include_router(included.router(prefix="/ai", user=Depends(barred)))
    idle = live_of(user=barred, settings=settings)
    wrapped = live_of(settings=settings).wrap(Starlette(), prefix="/ai", user=barred)
    forgotten = Starlette(routes=[Mount("/ai", idle.asgi)])
    return {"mount": starlette, "router": fastapi, "wrap": wrapped, "forgotten": forgotten}


@pytest.mark.parametrize("kind", ["mount", "router", "wrap", "forgotten"])
def test_a_page_of_an_allowed_origin_reads_why_it_is_refused(kind: str) -> None:
    with serving(refusing_apps()[kind]) as url:
        for how, status in [("", 401), ("raises", 403), ("no name", 500)]:
            expected = 503 if kind == "forgotten" else status
            for method, path in [("GET", "/ai/v1/models"), ("POST", "/ai/api/chat")]:
                headers = {"origin": FRIEND, "x-kind": how}
                answer = httpx.request(method, url + path, headers=headers)
                assert answer.status_code == expected, answer.text
                assert answer.headers.get_list("access-control-allow-origin") == [FRIEND]
                assert answer.headers["access-control-allow-credentials"] == "true"
                assert "Origin" in answer.headers["vary"]
                if status == expected == 403:
                    assert answer.headers["x-barred"] == "yes"
                headers["origin"] = "http://evil.example"
                answer = httpx.request(method, url + path, headers=headers)
                assert answer.status_code == expected
                assert "access-control-allow-origin" not in answer.headers


@pytest.mark.parametrize("kind", ["mounted", "included"])
def test_the_hosts_own_cors_holds_for_refusals(kind: str) -> None:
    app = cors_hosts(check_origin=False)[kind]
    app.user_middleware.append(
        Middleware(CORSMiddleware, allow_origins=[FRIEND], allow_credentials=True)
    )
    with serving(app) as url:
        answer = httpx.get(f"{url}/ai/v1/models", headers={"origin": FRIEND})
        assert answer.status_code == 401
        assert answer.headers.get_list("access-control-allow-origin") == [FRIEND]


@pytest.mark.parametrize("kind", ["fastapi", "starlette", "wrapped", "auth", "verify"])
def test_a_login_that_blocks_keeps_nobody_else_waiting(kind: str) -> None:
    asked, release = threading.Event(), threading.Event()

    def slow(credential: Any) -> str | None:
        asked.set()
        assert release.wait(60)
        return "ann"

    def asks(connection: HTTPConnection) -> str | None:
        return slow(connection)

    app = {
        "auth": lambda: app_of("wrapped", Auth(user=asks)),
        "verify": lambda: app_of("starlette", Auth(verify=slow)),
    }.get(kind, lambda: app_of(kind, asks))()
    with serving(app) as url, ThreadPoolExecutor(1) as pool:
        headers = {"authorization": "Bearer a"}
        waiting = pool.submit(httpx.get, f"{url}/ai/v1/models", timeout=60, headers=headers)
        try:
            assert asked.wait(60)
            own = "own" if kind == "fastapi" else "ai/livez"
            assert httpx.get(f"{url}/{own}", timeout=60).status_code == 200
            assert not waiting.done()
        finally:
            release.set()
        assert waiting.result(60).status_code == 200


@pytest.mark.parametrize("checks", [True, False])
@pytest.mark.parametrize("kind", ["mounted", "included"])
def test_the_hosts_own_cors(kind: str, checks: bool) -> None:
    app = cors_hosts(check_origin=checks)[kind]
    app.user_middleware.append(
        Middleware(
            CORSMiddleware, allow_origins=[FRIEND], allow_methods=["*"], allow_credentials=True
        )
    )
    with serving(app) as url:
        answer = httpx.options(f"{url}/ai/v1/runs", headers=PREFLIGHT)
        assert answer.status_code == 200
        with httpx.Client(cookies={"login": "ann"}, headers={"origin": FRIEND}) as ann:
            made = ann.post(f"{url}/ai/v1/runs", json={"prompt": "x"})
            assert made.status_code == (403 if checks else 201)
            assert made.headers.get_list("access-control-allow-origin") == [FRIEND]


def failing(connection: HTTPConnection) -> str:
    raise RuntimeError("the password is swordfish")


def refusing(connection: HTTPConnection) -> str:
    raise HTTPException(403, "you are barred")


def app_of(kind: str, user: Any) -> Any:
    return HOSTS[kind][0](user)


@pytest.mark.parametrize("kind", ["fastapi", "starlette", "wrapped"])
def test_a_login_that_raises_is_a_500_without_detail(
    kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.ERROR), serving(app_of(kind, failing)) as url:
        answer = httpx.get(f"{url}/ai/v1/models")
        assert answer.status_code == 500
        assert "swordfish" not in answer.text
        with pytest.raises(InvalidStatus) as caught, connect(url.replace("http", "ws") + "/ai/ws"):
            pass
        assert caught.value.response.status_code in (403, 500)
        assert b"swordfish" not in (caught.value.response.body or b"")
    if kind != "fastapi":  # there the application's server writes it, past this
        assert "swordfish" in caplog.text


@pytest.mark.parametrize("kind", ["fastapi", "starlette", "wrapped"])
def test_a_login_that_raises_an_http_error_is_that_answer(kind: str) -> None:
    with serving(app_of(kind, refusing)) as url:
        answer = httpx.get(f"{url}/ai/v1/models")
        assert answer.status_code == 403
        assert "you are barred" in answer.text
        with pytest.raises(InvalidStatus) as caught, connect(url.replace("http", "ws") + "/ai/ws"):
            pass
        assert caught.value.response.status_code in (403, 500)


def test_another_user_does_not_read_on(place: str) -> None:
    with httpx.Client(cookies={"login": "ann"}, timeout=20) as ann:
        run = ann.post(f"{place}/v1/runs", json={"prompt": "scenario:stall"}).json()["id"]
        events = f"{place}/v1/runs/{run}/events"
        with ann.stream("GET", events) as answer:
            cursor = next(x[4:] for x in answer.iter_lines() if x.startswith("id: "))
        with httpx.Client(cookies={"login": "bob"}, timeout=20) as bob:
            resumed = bob.get(events, headers={"last-event-id": cursor})
            assert resumed.status_code == 404
        address = place.replace("http", "ws", 1) + "/ws"
        with connect(address, additional_headers={"Cookie": "login=bob"}) as socket:
            socket.send(json.dumps({"op": "follow", "id": 1, "run": run}))
            assert json.loads(socket.recv(timeout=20))["error"]["code"] == "unknown_run"
        assert ann.post(f"{place}/v1/runs/{run}/cancel", json={}).status_code == 202
