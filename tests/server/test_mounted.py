"""All routes of the server inside of an application, under a prefix, behind its own login."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from typing import Annotated, Any

import httpx
import pytest
from fastapi import Depends, FastAPI, HTTPException, Request
from fastapi.security import OAuth2PasswordBearer
from starlette.applications import Starlette
from starlette.requests import HTTPConnection
from starlette.routing import Mount, WebSocketRoute
from websockets.sync.client import connect

from support.free_ports import free_port
from support.mounted import HOSTS, fastapi_app, live_of, me, serving, wrapped_app
from tokenwire.errors import ConfigError, GoneError, NotFoundError, TokenwireError
from tokenwire.server.settings import Settings

NUMBERS = "".join(f"{n} " for n in range(1, 91))


def me_or_401(connection: HTTPConnection) -> str:
    name = me(connection)
    if name is None:
        raise HTTPException(401, "who are you?")
    return name


@pytest.fixture(scope="module", params=HOSTS)
def place(request: pytest.FixtureRequest) -> Iterator[str]:
    make, prefix = HOSTS[request.param]
    with serving(make()) as url:
        yield url + prefix


def client(user: str | None = "ann") -> httpx.Client:
    return httpx.Client(cookies={"login": user} if user else {}, timeout=20)


def text_of(body: str) -> str:
    frames = [json.loads(x[6:]) for x in body.splitlines() if x.startswith("data: {")]
    return "".join(f["text"] for f in frames if f["type"] == "text-delta")


def test_a_run_is_started_read_and_stopped_by_its_own_user_only(place: str) -> None:
    with client() as ann, client("bob") as bob, client(None) as nobody:
        made = ann.post(f"{place}/v1/runs", json={"prompt": "scenario:slow"})
        assert made.status_code == 201, made.text
        run = made.json()["id"]
        assert made.headers["location"].endswith(f"/v1/runs/{run}")
        assert text_of(ann.get(f"{place}/v1/runs/{run}/events").text) == NUMBERS
        assert bob.get(f"{place}/v1/runs/{run}").status_code == 404
        assert bob.post(f"{place}/v1/runs/{run}/cancel", json={}).status_code == 404
        assert nobody.get(f"{place}/v1/runs/{run}").status_code == 401
        refused = nobody.post(f"{place}/v1/runs", json={"prompt": "x"})
        assert refused.status_code == 401
        assert ann.get(f"{place}/v1/runs/{run}").json()["state"] == "complete"


def test_what_a_location_names_is_there(place: str) -> None:
    with client() as ann:
        made = ann.post(f"{place}/v1/runs", json={"prompt": "scenario:text"})
        origin = place.split("/ai")[0]
        location = made.headers["location"]
        found = ann.get(location if location.startswith("http") else origin + location)
        assert found.status_code == 200, location
        assert ann.get(origin + made.json()["events"]).status_code == 200


def test_the_wires_answer_below_the_prefix(place: str) -> None:
    with client() as ann:
        body = {"model": "demo", "messages": [{"role": "user", "content": "scenario:slow"}]}
        chat = ann.post(f"{place}/v1/chat/completions", json=body)
        assert chat.json()["choices"][0]["message"]["content"] == NUMBERS
        message = {"id": "m1", "role": "user", "parts": [{"type": "text", "text": "scenario:slow"}]}
        ui = ann.post(f"{place}/api/chat", json={"id": "c-1-2-3", "messages": [message]})
        chunks = [json.loads(x[6:]) for x in ui.text.splitlines() if x.startswith("data: {")]
        assert "".join(c["delta"] for c in chunks if c["type"] == "text-delta") == NUMBERS
        assert ann.get(f"{place}/api/chat/c-1-2-3/stream").status_code == 204
        models = ann.get(f"{place}/v1/models").json()
        assert [m["id"] for m in models["data"]] == ["demo"]
        wrong = ann.post(f"{place}/v1/chat/completions", json={**body, "model": "gpt-9"})
        assert wrong.status_code == 404
        assert "gpt-9" in wrong.json()["error"]["message"], "the wire's own form of an error"


def test_a_socket_has_its_user(place: str) -> None:
    address = place.replace("http", "ws", 1) + "/ws"
    with connect(address, additional_headers={"Cookie": "login=ann"}) as socket:
        request = {"prompt": "scenario:slow"}
        socket.send(json.dumps({"op": "start", "id": 1, "request": request}))
        text = ""
        while True:
            events = [x["event"] for x in json.loads(socket.recv(timeout=20)).get("events", [])]
            text += "".join(e["text"] for e in events if e["type"] == "text-delta")
            if any(e["type"] == "run-end" for e in events):
                break
    assert text == NUMBERS
    with pytest.raises(Exception, match=r"401|403"), connect(address):
        pass


def test_a_page_of_another_site_starts_nothing(place: str) -> None:
    with client() as ann:
        headers = {"origin": "http://evil.example"}
        made = ann.post(f"{place}/v1/runs", json={"prompt": "x"}, headers=headers)
        assert made.status_code == 403


def test_no_request_names_its_own_user(place: str) -> None:
    with client(None) as nobody:
        for headers in (
            {"authorization": "Bearer ann"},
            {"tokenwire.user": "ann"},
            {"x-api-key": "ann"},
        ):
            assert nobody.get(f"{place}/v1/models", headers=headers).status_code == 401


def test_the_host_keeps_its_own_routes() -> None:
    with serving(wrapped_app()) as url:
        assert httpx.get(url + "/elsewhere").text == "the host's"
        assert httpx.get(url + "/aiming").text == "the host's"
    with serving(fastapi_app()) as url:
        assert httpx.get(url + "/own").json() == {"own": True}


def test_openapi_shows_the_routes() -> None:
    app = fastapi_app()
    paths = app.openapi()["paths"]
    assert "/ai/v1/runs/{run}/events" in paths
    operations = [op["operationId"] for path in paths.values() for op in path.values()]
    assert len(operations) == len(set(operations))
    assert paths["/ai/v1/runs"]["post"]["summary"] == "Start a run"


def test_some_wires_alone() -> None:
    live = live_of()
    app = FastAPI(lifespan=live.lifespan)
    app.include_router(live.router(user=me, wires=["openai"]))
    paths = set(app.openapi()["paths"])
    assert "/v1/chat/completions" in paths
    assert not paths & {"/v1/runs", "/v1/messages", "/api/chat"}
    with pytest.raises(ConfigError, match="unknown wire 'open-ai'"):
        live.router(user=me, wires="open-ai")


def test_a_login_that_refuses_is_the_hosts_own_answer() -> None:
    live = live_of()
    app = FastAPI(lifespan=live.lifespan)
    app.include_router(live.router(prefix="/ai", user=me_or_401))
    with serving(app) as url:
        answer = httpx.get(url + "/ai/v1/models")
        assert (answer.status_code, answer.json()) == (401, {"detail": "who are you?"})


@pytest.mark.parametrize("user", [7, "", "a\nb", "x" * 100_000, {"id": 1}, b"ann"])
def test_what_is_no_name_of_a_principal_is_nobody(user: Any) -> None:
    live = live_of(user=lambda connection: user)
    app = Starlette(routes=[Mount("/ai", live.asgi)], lifespan=live.lifespan)
    with serving(app) as url:
        answer = httpx.get(url + "/ai/v1/models")
        assert answer.status_code == 500
        assert len(answer.text) < 1000


def test_a_dependency_that_needs_a_request_is_refused_when_it_is_included() -> None:
    def by_request(request: Request) -> str:
        return ""

    def by_another(value: str = Depends(by_request)) -> str:
        return value

    live = live_of()
    for user in (by_another, by_request, Depends(by_request)):
        with pytest.raises(ConfigError, match="HTTPConnection"):
            live.router(user=user)
    with pytest.raises(ConfigError, match="user"):
        live.router()
    with pytest.raises(ConfigError, match="user"):
        _ = live.asgi
    with pytest.raises(ConfigError, match="prefix"):
        live.router(prefix="ai", user=me)
    with pytest.raises(ConfigError, match="user"):
        live_of(user="ann")


def of_token(token: str) -> str | None:
    return token.removeprefix("token-of-") if token.startswith("token-of-") else None


def by_request(request: Request) -> str | None:
    return of_token(request.headers.get("authorization", "").removeprefix("Bearer "))


def by_oauth(token: Annotated[str, Depends(OAuth2PasswordBearer("token"))]) -> str | None:
    return of_token(token)


@pytest.mark.parametrize("user", [by_request, by_oauth])
def test_a_user_that_needs_a_request_where_there_are_no_sockets(user: Any) -> None:
    live = live_of()
    with pytest.raises(ConfigError, match="sockets=False"):
        live.router(user=by_request)
    app = FastAPI(lifespan=live.lifespan)
    app.include_router(live.router(prefix="/ai", user=user, sockets=False))
    assert not [route for route in app.routes if isinstance(route, WebSocketRoute)]
    with serving(app) as url:
        for token, status in [("", 401), ("wrong", 401), ("token-of-ann", 200)]:
            headers = {"authorization": f"Bearer {token}"} if token else {}
            assert httpx.get(f"{url}/ai/v1/models", headers=headers).status_code == status


@pytest.mark.parametrize("kind", ["router", "mount"])
def test_a_forgotten_lifespan_is_said(kind: str) -> None:
    live = live_of(user=me)
    app: Any = FastAPI()
    if kind == "router":
        app.include_router(live.router(prefix="/ai", user=me))
    else:
        app.mount("/ai", live.asgi)
    with serving(app) as url:
        answer = httpx.get(url + "/ai/v1/models", cookies={"login": "ann"})
    assert answer.status_code == 503
    assert "live.lifespan" in answer.text


def test_started_by_hand_and_started_again() -> None:
    live = live_of()

    async def main() -> None:
        for _ in range(2):
            async with live:
                response = await live.start("scenario:slow")
                assert response.status_code == 200
                with pytest.raises(RuntimeError, match="already"):
                    await live.startup()
        with pytest.raises(RuntimeError, match="lifespan"):
            await live.start("x")

    asyncio.run(main())


def own_routes() -> FastAPI:
    live = live_of()
    app = FastAPI(lifespan=live.lifespan)

    @app.post("/chat")
    async def chat(prompt: str, model: str | None = None) -> Any:
        return await live.start(prompt, model=model, metadata={"a": 1})

    @app.get("/chat/{run}")
    async def again(run: str, request: Request) -> Any:
        return await live.resume(run, request.headers.get("last-event-id"))

    return app


def test_errors_are_answers_in_ones_own_routes_too() -> None:
    with serving(own_routes()) as url:
        answer = httpx.post(url + "/chat", params={"prompt": "x", "model": "nope"})
        assert answer.status_code == 400
        assert answer.json()["detail"]["code"] == "unknown_model"
        answer = httpx.get(url + "/chat/aaaaaaaaaaaaaaaaaaaaaa")
        assert (answer.status_code, answer.json()["detail"]["code"]) == (404, "unknown_run")
        answer = httpx.post(url + "/chat", params={"prompt": "scenario:text"})
        run = answer.headers["tokenwire-run"]
        headers = {"last-event-id": "77-0123456789abcdef"}
        assert httpx.get(f"{url}/chat/{run}", headers=headers).status_code in (409, 410, 400)


def test_errors_keep_their_class_and_are_starlettes_as_well() -> None:
    from starlette.responses import PlainTextResponse
    from starlette.routing import Route

    live = live_of()

    async def again(request: Request) -> Any:
        try:
            return await live.resume("aaaaaaaaaaaaaaaaaaaaaa")
        except NotFoundError as error:
            assert isinstance(error, TokenwireError)
            assert error.code == "unknown_run"
            if "own" in request.query_params:
                return PlainTextResponse("mine", 418)
            raise

    with serving(Starlette(routes=[Route("/x", again)], lifespan=live.lifespan)) as url:
        answer = httpx.get(url + "/x")
        assert answer.status_code == 404
        assert json.loads(answer.text)["code"] == "unknown_run"
        assert httpx.get(url + "/x?own").status_code == 418


def test_a_reader_that_has_the_end_is_told_to_stop() -> None:
    with serving(own_routes()) as url:
        answer = httpx.post(url + "/chat", params={"prompt": "scenario:text"})
        ids = [x[4:] for x in answer.text.splitlines() if x.startswith("id: ")]
        run = answer.headers["tokenwire-run"]
        last = httpx.get(f"{url}/chat/{run}", headers={"last-event-id": ids[-1]})
        assert (last.status_code, last.content) == (204, b"")
        before = httpx.get(f"{url}/chat/{run}", headers={"last-event-id": ids[-2]})
        assert before.status_code == 200


@pytest.mark.parametrize(
    "more",
    [
        {"temperature": "hot"},
        {"max_tokens": {}},
        {"nonsense": 1},
        {"metadata": {"a": object()}},
        {"stop": object()},
        {"run_id": "short"},
        {"thread": 7},
    ],
)
def test_wrong_types_are_refused_before_a_run_exists(more: dict[str, Any]) -> None:
    async def main() -> None:
        live = live_of()
        async with live:
            with pytest.raises(TokenwireError) as caught:
                await live.start("x", **more)
            assert caught.value.status_code == 400  # type: ignore[attr-defined]
            assert (await live._store.stats())["streams"] == 0

    asyncio.run(main())


def test_functions_are_tools() -> None:
    def get_weather(city: str) -> str:
        """The weather."""
        return f"sunny in {city}"

    live = live_of(tools=[get_weather])
    app = FastAPI(lifespan=live.lifespan)

    @app.post("/chat")
    async def chat(prompt: str) -> Any:
        return await live.start(prompt)

    with serving(app) as url:
        answer = httpx.post(url + "/chat", params={"prompt": "scenario:tool"}, timeout=20)
        assert "sunny in Paris" in answer.text


def test_old_runs_go_in_an_application_too() -> None:
    async def main() -> None:
        live = live_of(settings=Settings(retention=0.2))
        async with live:
            response = await live.start("scenario:text")
            run = response.headers["tokenwire-run"]
            async with asyncio.timeout(60):
                while True:
                    try:
                        await live.runs.info(run)
                    except (NotFoundError, GoneError):
                        return
                    await asyncio.sleep(0.1)

    asyncio.run(main())


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_readers_of_a_run_that_goes_on(number: signal.Signals) -> None:
    """Uvicorn waits for its connections before it ends the lifespan."""
    port = free_port()
    program = f"""
        import uvicorn
        from fastapi import FastAPI
        from tokenwire.server import Live
        live = Live("memory:", models=["demo"])
        app = FastAPI(lifespan=live.lifespan)

        @app.post("/chat")
        async def chat(prompt: str):
            return await live.start(prompt)

        uvicorn.run(app, port={port}, log_level="warning")
    """
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(program)],
        env={**os.environ, "PYTHONPATH": "src"},
    )
    try:
        url = f"http://127.0.0.1:{port}/chat"
        with httpx.Client(timeout=30) as http:
            for _ in range(200):
                try:
                    with http.stream("POST", url, params={"prompt": "scenario:stall"}) as answer:
                        lines = answer.iter_lines()
                        while "text-delta" not in next(lines):
                            pass
                        process.send_signal(number)
                        rest = "\n".join(lines)
                    break
                except httpx.ConnectError:
                    time.sleep(0.1)
        assert process.wait(20) in (0, -number, 130)
        assert '"type":"reconnect"' in rest, "the reader was told to come back"
    finally:
        if process.poll() is None:
            process.kill()
