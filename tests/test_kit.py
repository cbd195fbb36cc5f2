"""The test kit for users: it passes applications that resume, and fails those that do not."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from contextlib import asynccontextmanager
from importlib.metadata import entry_points

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.testclient import TestClient

import tokenwire
from tokenwire.server import Live
from tokenwire.server.app import create_app
from tokenwire.testing import (
    ScriptedModel,
    call,
    cut_everywhere,
    error,
    eventually_ends,
    wait_for_ends,
)

WORDS = ["Hello", ", ", "wörld\n", "Hello", "."]


def own_routes(model, **more):
    """Two routes of one's own."""
    live = Live("memory:", models=["any"], registry=model, http=model, **more)

    async def start(request: Request) -> Response:
        return await live.start("Hi")

    async def again(request: Request) -> Response:
        last = request.headers.get("last-event-id")
        return await live.resume(request.path_params["run"], last)

    routes = [Route("/chat", start, methods=["POST"]), Route("/chat/{run}", again)]
    return Starlette(routes=routes, lifespan=live.lifespan)


def mounted(model):
    live = Live("memory:", models=["any"], registry=model, http=model, user=lambda c: "ann")
    app = Starlette(lifespan=live.lifespan)
    app.mount("/ai", live.asgi)
    return app


@pytest.mark.parametrize("wire", ["events", "tokens"])
@pytest.mark.parametrize("every", ["event", "byte"])
def test_routes_of_ones_own_resume(wire, every):
    words = WORDS if every == "event" else ["Hi", "!"]
    model = ScriptedModel(words)
    app = own_routes(model, wire=wire)
    cut_everywhere(app, "/chat", resume="/chat/{run}", model=model, every=every)


def test_the_servers_routes_resume():
    @tokenwire.tool
    def clock(zone: str) -> str:
        """The time."""
        return f"12:00 {zone}"

    model = ScriptedModel(["One ", "moment.", call("clock", {"zone": "UTC"})], ["Noon", "."])
    live = Live("memory:", models=["any"], registry=model, http=model, user=lambda c: "ann")
    app = Starlette(lifespan=live.lifespan)
    app.mount("/ai", live.asgi)
    cut_everywhere(app, "/ai/v1/runs", model=model)
    assert model.steps is None


def test_a_server_by_its_address_and_a_failure_resume():
    from tokenwire.testing.serving import serving

    with serving(create_app()) as base:
        cut_everywhere(base, "/chat/stream?prompt=Hello", method="GET")
    model = ScriptedModel(["Half ", "of it", error()])
    cut_everywhere(own_routes(model), "/chat", resume="/chat/{run}", model=model)


CHAT = {"model": "any", "messages": [{"role": "user", "content": "x"}], "stream": True}
PARTS = [{"id": "1", "role": "user", "parts": [{"type": "text", "text": "x"}]}]


@pytest.mark.parametrize(
    ("path", "body", "more"),
    [
        ("/v1/chat/completions", CHAT, {}),
        (
            "/api/chat",
            {"id": "c1", "messages": PARTS},
            {"resume": "/ai/v1/runs/{run}/wires/ui", "reopens": True},
        ),
    ],
)
def test_wires_of_others_resume(path, body, more):
    model = ScriptedModel(["Hi", "!"])
    cut_everywhere(mounted(model), f"/ai{path}", json=body, model=model, **more)


class Broken:
    """An application of one run at a time, which resumes; ``fault`` is what is wrong with it."""

    def __init__(self, fault: str = "") -> None:
        self.fault, self.number = fault, 0
        self.model = ScriptedModel(["a1", "b2", "c3"])
        self.events: list[str] = []
        self.task: asyncio.Task[None] | None = None
        self.app = Starlette(
            routes=[Route("/chat", self.start, methods=["POST"]), Route("/again", self.again)]
        )

    async def write(self) -> None:
        async with tokenwire.stream("Hi", model=self.model) as run:
            async for text in run.text():
                self.events.append(json.dumps({"type": "text", "text": text}))
        if self.fault == "never ends":
            await asyncio.Event().wait()
        self.events.append("{}" if self.fault == "says no end" else '{"type": "finish"}')

    async def start(self, request: Request) -> Response:
        self.number, self.events = self.number + 1, []
        self.task = asyncio.create_task(self.write())
        return StreamingResponse(self.read(0, True), media_type="text/event-stream")

    async def again(self, request: Request) -> Response:
        if self.fault == "forgets":
            return JSONResponse({"error": "unknown run"}, 404)
        seen = int(request.headers.get("last-event-id", "0"))
        shift = {"repeats": -1, "loses": 1}.get(self.fault, 0)
        if self.fault == "starts anew":
            seen = 0
        body = self.read(max(0, seen + shift), False)
        return StreamingResponse(body, media_type="text/event-stream")

    async def read(self, seen: int, is_first: bool):
        try:
            whole, held = seen > 3, ""
            while not whole:
                while seen < len(self.events):
                    data, seen = self.events[seen], seen + 1
                    if self.fault == "splices" and not is_first and seen == 3:
                        data = json.dumps({"type": "text", "text": "of another"})
                    whole = seen > 3
                    if self.fault == "breaks off" and not is_first and whole:
                        return
                    id_line = "" if self.fault == "has no ids" else f"id: {seen}\n"
                    block = f"{id_line}data: {data}\n\n"
                    if self.fault == "buffers":
                        held += block
                    else:
                        yield block
                    if self.fault == "takes from a queue" and not is_first:
                        self.events[seen - 1] = '{"type": "gone"}'
                await asyncio.sleep(0.002)
            yield held
        finally:
            if self.fault == "stops with its reader" and len(self.events) < 3 and self.task:
                self.task.cancel()
                self.events[3:] = []
                while len(self.events) < 3:
                    self.events.append('{"type": "text", "text": "..."}')
                self.events.append('{"type": "abort"}')


def test_the_application_that_is_broken_below_resumes_where_it_is_not():
    app = Broken()
    cut_everywhere(app.app, "/chat", resume="/again", model=app.model, every="byte")


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("buffers", "uncut: the stream is buffered.*model said 'a1'.*no event came"),
        ("never ends", "uncut: the stream did not end in .*last of 3 events was .*c3"),
        ("says no end", "uncut: the stream ended without saying so.*last of 4 events"),
        ("has no ids", "cut after event 1 of 4: there was no id so far"),
        ("repeats", "cut after event 1 of 4: event 2 of 4 is a repetition of event 1"),
        ("starts anew", "cut after event 1 of 4: event 2 of 4 is a repetition of event 1"),
        ("loses", "cut after event 1 of 4: event 2 of 4 is event 3 in its place: event 2 is lost"),
        ("splices", "cut after event 1 of 4: event 3 of 4 is another one.*c3.*of another"),
        ("breaks off", "cut after event 1 of 4: the stream ended after event 3 of 4; lost"),
        ("forgets", "cut after event 1 of 4 .Last-Event-ID: 1.*status 404.*unknown run"),
        ("takes from a queue", "cut after event 2 of 4: event 3 of 4 is another one.*gone"),
        ("stops with its reader", "while it is written ends otherwise.*abort.*finish"),
    ],
)
def test_an_application_that_is_broken_is_said_to_be(fault, message):
    app = Broken(fault)
    # What never comes is waited for; all others are given their time.
    timeout = {"buffers": 3, "never ends": 6}.get(fault, 45)
    with pytest.raises(AssertionError, match=f"(?s){message}"):
        cut_everywhere(app.app, "/chat", resume="/again", model=app.model, timeout=timeout)
    assert app.model.steps is None


def test_what_is_no_stream_is_said():
    with pytest.raises(AssertionError, match=r"POST /nothing: no event stream.*404"):
        cut_everywhere(Broken().app, "/nothing")

    @asynccontextmanager
    async def fails(app):
        raise RuntimeError("no such database")
        yield

    with pytest.raises(AssertionError, match="the application did not start"):
        cut_everywhere(Starlette(lifespan=fails), "/chat")
    with pytest.raises(AssertionError, match="POST /chat: no response"):
        cut_everywhere("http://127.0.0.1:9", "/chat")


# --- ends ----------------------------------------------------------------------------------------


def start(client: TestClient, prompt: str) -> str:
    return client.post("/ai/v1/runs", json={"prompt": prompt}).json()["id"]


def test_runs_that_end_are_waited_for():
    model = ScriptedModel(["Hi"], ["Ho", error()])
    live = Live("memory:", models=["any"], registry=model, http=model, user=lambda c: "ann")
    app = Starlette(lifespan=live.lifespan)
    app.mount("/ai", live.asgi)
    with TestClient(app) as client:
        runs = [start(client, "x"), start(client, "y")]
        states = eventually_ends(live, *runs)
        assert sorted(states) == sorted(runs)
        assert sorted(states.values()) == ["complete", "error"]
        assert eventually_ends(live) == {}
    with pytest.raises(AssertionError, match="the application does not run"):
        eventually_ends(live)


def test_a_run_that_does_not_end_is_named_with_its_state():
    @tokenwire.tool(needs_approval=True)
    def delete(path: str) -> str:
        """Delete a file."""
        return path

    @tokenwire.tool
    async def sleep() -> str:
        """Never comes back."""
        await asyncio.Event().wait()
        return ""

    model = ScriptedModel(["Shall I?", call("delete", {"path": "x"})], ["Wait", call("sleep")])
    live = Live(
        "memory:",
        models=["any"],
        registry=model,
        http=model,
        user=lambda c: "ann",
        tools=[delete, sleep],
    )
    app = Starlette(lifespan=live.lifespan)
    app.mount("/ai", live.asgi)
    with TestClient(app) as client:
        first = start(client, "x")
        while client.get(f"/ai/v1/runs/{first}").json()["state"] != "waiting":
            pass
        second = start(client, "y")
        while not any(
            t.get("started") for t in client.get(f"/ai/v1/runs/{second}").json()["tools"]
        ):
            pass
        with pytest.raises(AssertionError) as failure:
            eventually_ends(live, timeout=0.1)
        text = str(failure.value)
        assert "2 runs of 2 did not end in 0.1 s" in text
        assert f"{first}: state waiting, model any" in text
        assert "last text 'Shall I?'" in text
        assert f"{second}: state running" in text
        assert "in the tool sleep" in text
        for run in (first, second):
            client.post(f"/ai/v1/runs/{run}/cancel")
        ends = eventually_ends(live, first, second)
        assert ends == {first: "cancelled", second: "cancelled"}


def test_ends_are_awaited_in_a_coroutine():
    model = ScriptedModel(["Hi"])

    async def main() -> None:
        async with Live("memory:", models=["any"], registry=model, http=model) as live:
            request = tokenwire.Request(messages=[tokenwire.user("x")])
            run = await live.runs.start(request, model="any")
            with pytest.raises(AssertionError, match="await wait_for_ends"):
                eventually_ends(live)
            assert await wait_for_ends(live, run.id) == {run.id: "complete"}

    asyncio.run(main())


# --- pytest --------------------------------------------------------------------------------------

USER_TEST = """
import sys

def test_nothing_is_imported():
    assert not [n for n in sys.modules if n.startswith(("tokenwire.", "uvicorn", "starlette"))
                and n != "tokenwire.pytest_plugin"]

def test_fixtures(scripted_model, cut_everywhere, eventually_ends):
    from tokenwire.testing import ScriptedModel
    assert isinstance(scripted_model(["Hello"]), ScriptedModel)
    cut_everywhere("http://127.0.0.1:9")
"""


def test_the_fixtures_are_there_and_cost_nothing_unless_used(tmp_path):
    (tmp_path / "test_user.py").write_text(USER_TEST, encoding="utf-8")
    (tmp_path / "pytest.ini").write_text("[pytest]\n", encoding="utf-8")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:randomly"]
    command += ["-p", "no:schemathesis", "-p", "no:valkey", "test_user.py"]
    if "tokenwire" not in entry_points(group="pytest11").names:
        command += ["-p", "tokenwire.pytest_plugin"]  # installed before it had the entry point
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=200)
    assert "1 failed, 1 passed" in done.stdout, done.stdout + done.stderr
    assert "POST /v1/runs: no response" in done.stdout


def test_the_plugin_is_an_entry_point():
    import tomllib
    from pathlib import Path

    project = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text("utf-8"))
    points = project["project"]["entry-points"]["pytest11"]
    assert points == {"tokenwire": "tokenwire.pytest_plugin"}
