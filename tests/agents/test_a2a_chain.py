"""A tokenwire in front of a tokenwire, over A2A: approvals, results, cuts and killed servers."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from support.a2a_client import Seen, client, in_loop, question
from support.a2a_peer import sdk_peer
from support.agents import asked, events_of, worker
from support.process import serving
from support.server import simulator
from tokenwire import RunContext, agent, tool
from tokenwire.agents.load import load_agent
from tokenwire.events import model as m
from tokenwire.events.fold import fold
from tokenwire.providers.registry import Registry
from tokenwire.server.app import create_app
from tokenwire.server.settings import Settings
from tokenwire.server.start import ThreadedServer
from tokenwire.tools.registry import ToolSet

SLOW = "".join(f"{number} " for number in range(1, 91))


@tool(executor="client")
def get_weather(city: str) -> dict[str, str]:
    """The weather, which the client knows."""
    raise NotImplementedError


@agent(name="clerk")
async def clerk(ctx: RunContext) -> None:
    ctx.progress(0.5, "reading")
    ctx.data("order", {"number": 7})
    answer = await ctx.request_approval("send", {"to": "ann"}, reason="Send it?")
    await ctx.say(f"sent to {answer.arguments['to']}" if answer else f"kept: {answer.reason}")


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    registry = Registry(demo_url=simulator().server.url + "/v1", env={})
    settings = Settings(port=0, access_log=False, model=["demo"])
    app = create_app(settings, registry=registry, tools=ToolSet([get_weather]), agents=[clerk])
    with ThreadedServer(app) as server:
        yield server.url


@pytest.mark.parametrize(
    ("decision", "text"),
    [
        ({"approved": True, "arguments": {"to": "eve"}}, "sent to eve"),
        ({"approved": True}, "sent to ann"),
        ({"approved": False, "reason": "too late"}, "kept: too late"),
    ],
)
async def test_an_approval_passes_through(
    url: str, tmp_path: Path, decision: Any, text: str
) -> None:
    async with worker(tmp_path, load_agent(f"front=a2a:{url}#clerk")) as runs:
        info = await runs.start(asked(), model="front")
        events = await events_of(runs, info.id, lambda e: isinstance(e, m.RunWait))
        (question,) = [e for e in events if isinstance(e, m.ApprovalRequest)]
        assert (question.name, question.arguments) == ("send", {"to": "ann"})
        assert question.reason == "Send it?"
        await runs.approve(info.id, events[-1].pending[0], **decision)
        events = await events_of(runs, info.id)
    state = fold(events)
    assert (state.text, state.outcome) == (text, "complete")
    assert [e.payload for e in events if isinstance(e, m.Data)] == [{"number": 7}]
    assert "reading" in [e.message for e in events if isinstance(e, m.RunProgress)]


async def test_a_result_of_a_clients_tool_passes_through(url: str, tmp_path: Path) -> None:
    async with worker(tmp_path, load_agent(f"front=a2a:{url}#demo")) as runs:
        info = await runs.start(asked("scenario:tool"), model="front")
        events = await events_of(runs, info.id, lambda e: isinstance(e, m.RunWait))
        question = next(e for e in events if isinstance(e, m.ApprovalRequest))
        assert question.arguments["tool"] == "get_weather"
        edited = {**question.arguments, "content": {"sky": "clear"}}
        await runs.approve(info.id, events[-1].pending[0], approved=True, arguments=edited)
        state = fold(await events_of(runs, info.id))
    assert state.outcome == "complete"


@pytest.mark.parametrize("answer", ["the red", "no"])
async def test_an_a2a_client_answers_a_remote_question_in_words(answer: str) -> None:
    """The a2a-sdk's client, a server of ours, and the a2a-sdk's server behind it."""
    with sdk_peer() as (door, executor):
        settings = Settings(port=0, access_log=False, model=["demo"], agent=[f"far=a2a:{door.url}"])
        registry = Registry(demo_url=simulator().server.url + "/v1", env={})
        with ThreadedServer(create_app(settings, registry=registry)) as server:
            async with client(server.url, streaming=False, tenant="far") as a:
                seen = await Seen().read(a.send_message(question("ask")))
                assert (seen.states, seen.said) == (["INPUT_REQUIRED"], "Which one?")
                more = question(answer, task_id=seen.task.id)
                ended = await Seen().read(a.send_message(more))
        assert ended.states == ["COMPLETED"]
        assert ended.text == f"before answered {answer}"
        assert executor.texts == ["ask", answer]


@in_loop
async def test_killed_servers_at_both_ends(tmp_path: Path) -> None:
    """The remote server is killed and starts again; so is the one in front, which another one of
    its store takes over. The message arrives once, and the text is whole."""
    far, near = tmp_path / "far", tmp_path / "near"
    far.mkdir()
    near.mkdir()
    remote = ["--store", f"sqlite:{far / 'runs.db'}"]
    with serving(far, *remote) as one:
        port = str(urlsplit(one.url).port)
        front = ["--store", f"sqlite:{near / 'runs.db'}", "--agent", f"peer=a2a:{one.url}"]
        with serving(near, *front) as first, serving(near, *front) as second:
            async with httpx.AsyncClient(trust_env=False, timeout=60) as http:
                body = {"model": "peer", "messages": [{"role": "user", "content": "scenario:slow"}]}
                answer = await http.post(f"{first.url}/v1/runs", json=body)
                run = answer.json()["id"]
                await _said(http, first.url, run, 3)
                one.stop(signal.SIGKILL)
                with serving(far, *remote, "--port", port) as again:
                    assert again.url == one.url
                    before = await _said(http, first.url, run, 8)
                    first.stop(signal.SIGKILL)
                    text = await _said(http, second.url, run, 90)
                    assert text == SLOW
                    assert SLOW.startswith(before)
                    page = await http.get(f"{again.url}/a2a/tasks")
                    (task,) = page.json()["tasks"]
                    assert task["status"]["state"] == "TASK_STATE_COMPLETED"
                    while (await _state(http, second.url, run))["state"] == "running":
                        await asyncio.sleep(0.02)
                    assert (await _state(http, second.url, run))["state"] == "complete"


async def _state(http: httpx.AsyncClient, url: str, run: str) -> dict[str, Any]:
    return (await http.get(f"{url}/v1/runs/{run}")).json()


async def _said(http: httpx.AsyncClient, url: str, run: str, words: int) -> str:
    """The text of the run, once it has so many words."""
    while True:
        state = await _state(http, url, run)
        text = "".join(p.get("text", "") for p in state["message"]["content"])
        if text.count(" ") >= words:
            return text
        assert state["state"] in ("running", "complete"), state
        await asyncio.sleep(0.05)
