"""An agent behind the server: asked for by its name, on every wire."""

from __future__ import annotations

import asyncio
import json
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from support.cli import run
from support.server import AS_A, AS_B, KEYS, simulator
from tokenwire import RunContext, agent
from tokenwire.agents.load import agents_of, load_agent
from tokenwire.errors import ConfigError, UnknownModelError
from tokenwire.framing.sse import SSEDecoder
from tokenwire.providers.registry import Registry
from tokenwire.server.app import create_app
from tokenwire.server.embed.live import Live
from tokenwire.server.settings import Settings
from tokenwire.server.start import ThreadedServer


@agent
async def support(ctx: RunContext):
    value = await ctx.step("search", lambda: {"secret": "s3cret"})
    ctx.progress(0.5, "reading")
    ctx.data("sources", ["https://docs.example/a"])
    ctx.state({"stage": "drafting"})
    yield f"You asked: {ctx.prompt}. "
    async with ctx.stream("scenario:text", model="demo") as answer:
        await answer.result()
    yield f"{len(value)} {ctx.app}"


@agent("closed", allow=["b"])
async def closed(ctx: RunContext):
    yield "for b"


@agent
async def asker(ctx: RunContext):
    answer = await ctx.request_approval("send", {"to": "all"})
    yield str(answer.arguments)


@contextmanager
def served(**settings: Any) -> Iterator[httpx.Client]:
    registry = Registry(demo_url=simulator().server.url + "/v1", env={})
    app = create_app(
        Settings(port=0, graceful_stop=2.0, access_log=False, **settings),
        registry=registry,
        agents=[support, closed, asker],
        app="the app",
    )
    with (
        ThreadedServer(app) as server,
        httpx.Client(base_url=server.url, timeout=30, trust_env=False) as client,
    ):
        yield client


def chunks(answer: httpx.Response) -> list[dict[str, Any]]:
    decoder = SSEDecoder()
    frames = [*decoder.feed(answer.content), *decoder.finish()]
    return [json.loads(f.text) for f in frames if f.text and f.text != "[DONE]"]


def test_models_list_agents_and_only_ones_own() -> None:
    with served(api_keys=KEYS) as client:
        own, all_names = ["support", "asker", "demo"], ["support", "closed", "asker", "demo"]
        for headers, names in [(AS_A, own), (AS_B, all_names)]:
            listed = client.get("/v1/models", headers=headers).json()["data"]
            assert [m["id"] for m in listed] == names
            assert [m["id"] for m in listed if m.get("agent")] == names[:-1]
        assert client.get("/v1/models/closed", headers=AS_A).status_code == 404
        body = {"prompt": "Hi", "model": "closed"}
        assert client.post("/v1/runs", json=body, headers=AS_A).status_code in (400, 404)
        assert client.post("/v1/runs", json=body, headers=AS_B).status_code == 201


def test_every_wire_asks_for_it_by_name() -> None:
    with served() as client:
        run = client.post("/v1/runs", json={"prompt": "Why?", "model": "support"}).json()["id"]
        events = chunks(client.get(f"/v1/runs/{run}/events"))
        text = "".join(e["text"] for e in events if e["type"] == "text-delta")
        assert text.startswith("You asked: Why?. ")
        assert text.endswith("1 the app")
        assert events[-1]["outcome"] == "complete"
        assert "s3cret" not in json.dumps(events)
        assert "s3cret" not in client.get(f"/v1/runs/{run}").text

        asked = [{"role": "user", "content": "Why?"}]
        body = {"model": "support", "messages": asked, "stream": True}
        said = chunks(client.post("/v1/chat/completions", json=body))
        words = [c["delta"].get("content", "") for s in said for c in s.get("choices", [])]
        assert "".join(words) == text
        whole = client.post("/v1/chat/completions", json={**body, "stream": False}).json()
        assert whole["choices"][0]["message"]["content"] == text

        body = {"model": "support", "messages": asked, "max_tokens": 100}
        answer = client.post("/v1/messages", json=body).json()
        assert "".join(b.get("text", "") for b in answer["content"]) == text

        parts = [{"type": "text", "text": "Why?"}]
        message = {"id": "m1", "role": "user", "parts": parts}
        body = {"id": "chat-1", "messages": [message], "model": "support"}
        said = chunks(client.post("/api/chat", json=body))
        assert "".join(c["delta"] for c in said if c["type"] == "text-delta") == text
        types = {c["type"] for c in said}
        assert {"data-sources", "data-state", "data-progress", "data-step"} <= types


def test_the_first_agent_is_the_default() -> None:
    with served() as client:
        run = client.post("/v1/runs", json={"prompt": "Hi"}).json()
        assert run["model"] == "support"


async def test_live_starts_agents() -> None:
    async def plain(ctx: RunContext):
        yield f"{ctx.app} {ctx.thread} {ctx.metadata}"

    live = Live(agents=[plain], app="app")
    assert live.models == ["plain"]
    async with live.lifespan():
        with pytest.raises(UnknownModelError):
            await live.start("x", model="demo")
        response = await live.start("x", thread="t")
        pieces: list[bytes] = []

        async def send(message: Any) -> None:
            pieces.append(message.get("body", b""))

        async def receive() -> Any:
            await asyncio.Event().wait()

        await response({"type": "http"}, receive, send)
        assert b"app t {}" in b"".join(pieces)


def test_names_of_agents(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "my_agents.py"
    file.write_text(
        "from tokenwire import agent\n\n\n"
        "@agent\nasync def hello(ctx):\n    yield 'Hello'\n\n\nodd = 7\n"
    )
    assert load_agent(f"{file}:hello").name == "hello"
    monkeypatch.syspath_prepend(tmp_path)
    sys.modules.pop("my_agents", None)
    assert load_agent("other=my_agents:hello").name == "other"
    for bad in [
        "my_agents:nothing",
        "nowhere_at_all:x",
        "my_agents",
        "=my_agents:hello",
        "my_agents:odd",
    ]:
        with pytest.raises(ConfigError):
            load_agent(bad)
    with pytest.raises(ConfigError, match="two agents"):
        agents_of([support, support])
    with pytest.raises(ConfigError, match="not an agent"):
        agents_of([7])


def test_the_command_line_talks_with_an_agent(tmp_path: Path) -> None:
    file = tmp_path / "echo_agent.py"
    file.write_text("async def echo(prompt: str):\n    yield f'You said {prompt}'\n")
    done = run("chat", "--agent", f"{file}:echo", "good day")
    assert done.returncode == 0, done.stderr
    assert "You said good day" in done.stdout


def test_edits_over_ag_ui_that_are_no_object_do_not_run_the_original() -> None:
    with served() as client:
        body: dict[str, Any] = {
            "threadId": "t",
            "runId": "r1",
            "messages": [{"id": "m1", "role": "user", "content": "x"}],
            "tools": [],
            "context": [],
            "state": {},
            "forwardedProps": {"model": "asker"},
        }
        asked = client.post("/ag-ui", json=body)
        found = re.search(r'"(ap_[A-Za-z0-9_]+)"', asked.text)
        assert found is not None, asked.text
        entry = {"interruptId": found[1], "status": "resolved"}
        for number, edited in enumerate((["none"], "none", 7, False)):
            for field in ("editedArgs", "arguments"):
                bad = {**entry, "payload": {"approved": True, field: edited}}
                again = body | {"runId": f"{field}-{number}", "resume": [bad]}
                refused = client.post("/ag-ui", json=again)
                assert refused.status_code == 400, refused.text
        good = {**entry, "payload": {"approved": True, "editedArgs": {"to": "none"}}}
        done = client.post("/ag-ui", json=body | {"runId": "r3", "resume": [good]})
        assert "{'to': 'none'}" in done.text
        assert "{'to': 'all'}" not in done.text
