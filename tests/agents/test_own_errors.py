"""An agent that says itself that it failed: its run ends as an error, on every wire."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import httpx
import pytest

import tokenwire
from support.a2a_reader import A2AReader
from support.agents import asked, crash, events_of, worker
from support.langgraph_reader import LangGraphReader
from support.server import simulator
from support.wire_readers import (
    AGUIReader,
    AnthropicReader,
    ChatReader,
    Reader,
    ResponsesReader,
    UIReader,
)
from tokenwire import RunContext, agent
from tokenwire.agents.prepare import preparation_of
from tokenwire.errors import TokenwireError
from tokenwire.events import model as m
from tokenwire.events.fold import Fold, fold
from tokenwire.providers.registry import Registry
from tokenwire.server.app import create_app
from tokenwire.server.settings import Settings
from tokenwire.server.start import ThreadedServer
from tokenwire.testing import ScriptedModel, error
from tokenwire.wire.catalogue import WIRES

SENTENCE = "the archive is closed on Sundays"


def closed() -> m.Error:
    return m.Error(scope="internal", code="archive_closed", message=SENTENCE)


async def alone(ctx: RunContext):
    yield closed()


async def amid_words(ctx: RunContext):
    yield "Let me see. "
    yield closed()
    yield "Sorry."


async def sent(ctx: RunContext) -> str:
    await ctx.emit(closed())
    return "Sorry."


async def by_a_speaker(ctx: RunContext) -> None:
    await ctx.emit_as(ctx.speaker(m.Agent(id="clerk")), [closed()])


def blocking(ctx: RunContext):
    yield "Let me see. "
    yield closed()


async def before_a_model(ctx: RunContext):
    yield closed()
    async with ctx.stream("write", model=ScriptedModel(["Model words."])) as answer:
        await answer.result()


async def around_steps(ctx: RunContext):
    await ctx.step("one", lambda: 1)
    yield closed()
    await ctx.step("two", lambda: 2)
    ctx.data("n", 1)


async def after_another(ctx: RunContext):
    yield m.Error(scope="internal", code="first", message="not this one")
    yield closed()


async def amid_a_failed_model(ctx: RunContext):
    yield closed()
    async with ctx.stream("write", model=ScriptedModel([error("tired")])) as answer:
        async for _ in answer:
            pass
    yield "Sorry."


SAID: dict[Any, str] = {
    alone: "",
    amid_words: "Let me see. Sorry.",
    sent: "Sorry.",
    by_a_speaker: "",
    blocking: "Let me see. ",
    before_a_model: "Model words.",
    around_steps: "",
    after_another: "",
}


def check(state: Fold, text: str) -> None:
    failure = state.error or {}
    assert (state.outcome, state.end_reason, state.text) == ("error", "archive_closed", text)
    assert (failure["code"], failure["message"]) == ("archive_closed", SENTENCE)


@pytest.mark.parametrize("function", SAID)
async def test_a_run_ends_with_the_error_that_its_agent_said(function: Any, tmp_path: Path) -> None:
    job = agent("job")(function)
    async with tokenwire.stream("Hello", model=job) as run:
        async for _ in run:
            pass
        check(run.state, SAID[function])
        with pytest.raises(TokenwireError, match=SENTENCE):
            await run.result()
    async with worker(tmp_path, job) as runs:
        info = await runs.start(asked(), model="job")
        events = await events_of(runs, info.id)
        check(fold(events), SAID[function])
        assert (await runs.info(info.id)).state == "error"
    assert [e.code for e in events if isinstance(e, m.Error)] == ["archive_closed"]


async def test_it_is_the_end_also_where_a_model_failed_later(tmp_path: Path) -> None:
    async with worker(tmp_path, agent("job")(amid_a_failed_model)) as runs:
        info = await runs.start(asked(), model="job")
        check(fold(await events_of(runs, info.id)), "Sorry.")


async def test_a_failed_model_that_the_agent_made_good_is_no_failure(tmp_path: Path) -> None:
    @agent
    async def job(ctx: RunContext):
        async with ctx.stream("write", model=ScriptedModel(["Ha", error("tired")])) as answer:
            async for _ in answer:
                pass
        async with ctx.stream("write", model=ScriptedModel(["Model words."])) as answer:
            await answer.result()

    async with worker(tmp_path, job) as runs:
        info = await runs.start(asked(), model="job")
        assert fold(await events_of(runs, info.id)).outcome == "complete"


@pytest.mark.parametrize("last", [True, False])
async def test_another_worker_ends_it_with_the_same_error_once(last: bool, tmp_path: Path) -> None:
    tries: list[int] = []

    def make() -> Any:
        @agent
        async def job(ctx: RunContext):
            yield "Let me see. "
            yield closed()
            if not last:
                await ctx.step("after", lambda: 1)
            yield "Sorry."
            tries.append(1)
            if len(tries) == 1:
                await asyncio.sleep(60)

        return job

    async with worker(tmp_path, make()) as first:
        info = await first.start(asked(), model="job")
        await events_of(first, info.id, lambda e: isinstance(e, m.TextDelta) and "Sorry" in e.text)
        crash(first)
        async with worker(tmp_path, make()) as second:
            events = await events_of(second, info.id)
    check(fold(events), "Let me see. Sorry.")
    assert sum(isinstance(e, m.Error) for e in events) == 1


async def test_no_model_is_called_after_an_error_of_the_preparation(tmp_path: Path) -> None:
    async def prepare(ctx: RunContext) -> None:
        await ctx.say("I look. ")
        await ctx.emit(closed())

    model = ScriptedModel(["Because."])
    async with worker(
        tmp_path, prepare=preparation_of(prepare), registry=model, http=model
    ) as runs:
        info = await runs.start(asked(), model="scripted")
        check(fold(await events_of(runs, info.id)), "I look. ")
    assert model.requests == []


READERS: dict[str, type[Reader]] = {
    "a2a": A2AReader,
    "langgraph": LangGraphReader,
    "ui": UIReader,
    "ui-5": UIReader,
    "ui-6": UIReader,
    "ui-7": UIReader,
    "ag-ui": AGUIReader,
    "tanstack": AGUIReader,
    "openai-chat": ChatReader,
    "openai-responses": ResponsesReader,
    "anthropic": AnthropicReader,
}


def test_every_wire_says_that_it_failed() -> None:
    assert set(READERS) == set(WIRES)
    registry = Registry(demo_url=simulator().server.url + "/v1", env={})
    app = create_app(Settings(port=0), registry=registry, agents=[agent("job")(amid_words)])
    with (
        ThreadedServer(app) as server,
        httpx.Client(base_url=server.url, timeout=30, trust_env=False) as client,
    ):
        run = client.post("/v1/runs", json={"prompt": "Why?", "model": "job"}).json()["id"]
        client.get(f"/v1/runs/{run}/events")
        for wire, made in READERS.items():
            reader: Any = made()
            answer = client.get(f"/v1/runs/{run}/wires/{wire}")
            reader.feed(answer.content)
            assert reader.ended, wire
            assert (reader.end or "").partition(" ")[0] in ("error", "failed", "FAILED"), wire
            assert SENTENCE in answer.text, wire
        body = {"model": "job", "messages": [{"role": "user", "content": "Why?"}]}
        for path in ("/v1/chat/completions", "/v1/messages"):
            whole = client.post(path, json={**body, "max_tokens": 100})
            assert whole.status_code >= 400, path
            assert SENTENCE in whole.text, path
