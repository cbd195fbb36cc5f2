"""Preparations: code of the host inside a run, before its first model call."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

import tokenwire
from support.agents import LEASE, asked, crash, events_of, worker
from support.cli import background
from tokenwire import RunContext, Runs, ToolSet, agent, system, tool
from tokenwire.agents.prepare import Preparation, preparation_of
from tokenwire.errors import ConfigError
from tokenwire.events import model as m
from tokenwire.events.fold import Fold, fold
from tokenwire.relay.outbox import EndedRun
from tokenwire.server.app import create_app
from tokenwire.server.embed.live import Live
from tokenwire.server.settings import Settings
from tokenwire.server.start import ThreadedServer
from tokenwire.testing import ScriptedModel, call

PAUSE = 0.02


@asynccontextmanager
async def prepared(
    path: Path, prepare: Any, model: ScriptedModel, *agents: Any, **more: Any
) -> AsyncIterator[Runs]:
    preparation = preparation_of(prepare) if prepare is not None else None
    options = {"prepare": preparation, "registry": model, "http": model, **more}
    async with worker(path, *agents, **options) as runs:
        yield runs


async def outcome(path: Path, prepare: Any, model: ScriptedModel, **more: Any) -> list[Any]:
    async with prepared(path, prepare, model, **more) as runs:
        info = await runs.start(asked("Why?"), model="scripted")
        return await events_of(runs, info.id)


def texts(model: ScriptedModel, number: int = 0) -> list[str]:
    return [message["content"] for message in model.requests[number]["messages"]]


async def test_the_model_receives_what_the_preparation_returns(tmp_path: Path) -> None:
    model = ScriptedModel(["Because."])

    async def prepare(ctx: RunContext) -> list[tokenwire.Message]:
        docs = await ctx.step("search", lambda: ["Cats purr."])
        ctx.progress(0.5, "reading")
        ctx.data("sources", docs)
        ctx.state({"stage": "prepared"})
        await ctx.say("I looked it up. ")
        return [system(docs[0]), *ctx.messages]

    events = await outcome(tmp_path, prepare, model)
    state = fold(events)
    assert texts(model) == ["Cats purr.", "Why?"]
    assert (state.outcome, state.text) == ("complete", "I looked it up. Because.")
    assert state.shared == {"stage": "prepared"}
    assert [s.kind for s in state.steps] == ["task", "agent", "model"]
    assert [e.payload for e in events if isinstance(e, m.Data)] == [["Cats purr."]]
    first_call = next(e.seq for e in events if isinstance(e, m.StepStart) and e.kind == "model")
    assert all(e.seq < first_call for e in events if isinstance(e, m.Data | m.RunProgress))


def nothing(ctx: RunContext) -> None:
    assert ctx.prompt == "Why?"


async def with_a_new_question(ctx: RunContext) -> tokenwire.Message:
    return tokenwire.user("What then?")


def as_objects(ctx: RunContext) -> Any:
    return [{"role": "user", "content": "An object?"}]


@pytest.mark.parametrize(
    ("prepare", "expected"),
    [(nothing, "Why?"), (with_a_new_question, "What then?"), (as_objects, "An object?")],
)
async def test_what_a_preparation_may_return(prepare: Any, expected: str, tmp_path: Path) -> None:
    model = ScriptedModel(["Because."])
    assert fold(await outcome(tmp_path, prepare, model)).outcome == "complete"
    assert texts(model) == [expected]


@pytest.mark.parametrize("value", ["a text", 7, [], [7], [{"role": "robot"}], {"role": "user"}])
async def test_what_is_no_conversation_ends_the_run(value: Any, tmp_path: Path) -> None:
    model = ScriptedModel(["never"])

    async def prepare(ctx: RunContext) -> Any:
        return value

    state = fold(await outcome(tmp_path, prepare, model))
    assert (state.outcome, model.requests) == ("error", [])
    assert state.error is not None
    assert "prepare" in state.error["message"]


async def test_a_failure_is_told_safely_and_no_model_is_called(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = ScriptedModel(["never"])

    async def prepare(ctx: RunContext) -> None:
        raise RuntimeError("password=hunter2")

    events = await outcome(tmp_path, prepare, model)
    state = fold(events)
    assert (state.outcome, state.error and state.error["code"]) == ("error", "agent_failed")
    assert "hunter2" not in str(events)
    assert "hunter2" in caplog.text
    assert model.requests == []


async def test_stop_while_preparing(tmp_path: Path) -> None:
    model, seen = ScriptedModel(["never"]), []

    async def prepare(ctx: RunContext) -> None:
        ctx.progress(0.1)
        try:
            await asyncio.sleep(60)
        finally:
            seen.append(ctx.cancelled)

    async with prepared(tmp_path, prepare, model) as runs:
        info = await runs.start(asked(), model="scripted")
        await events_of(runs, info.id, lambda e: isinstance(e, m.RunProgress))
        await runs.cancel(info.id)
        state = fold(await events_of(runs, info.id))
    assert (state.outcome, seen, model.requests) == ("cancelled", [True], [])


async def test_a_preparation_that_swallows_its_stop_calls_no_model(tmp_path: Path) -> None:
    model = ScriptedModel(["never"])

    async def prepare(ctx: RunContext) -> None:
        ctx.progress(0.1)
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            ctx.progress(1.0)

    async with prepared(tmp_path, prepare, model) as runs:
        info = await runs.start(asked(), model="scripted")
        await events_of(runs, info.id, lambda e: isinstance(e, m.RunProgress))
        await runs.cancel(info.id)
        state = fold(await events_of(runs, info.id))
        await asyncio.sleep(0.1)
    assert (state.outcome, model.requests) == ("cancelled", [])


async def test_its_time_is_bounded_and_the_models_is_its_own(tmp_path: Path) -> None:
    model = ScriptedModel(["never"])
    quick = tokenwire.Deadlines(total=0.2)

    async def endless(ctx: RunContext) -> None:
        await asyncio.sleep(60)

    state = fold(await outcome(tmp_path, endless, model, deadlines=quick))
    assert (state.outcome, state.error and state.error["code"]) == ("error", "timeout")
    assert model.requests == []


async def test_agents_are_not_prepared(tmp_path: Path) -> None:
    calls: list[str] = []

    @agent
    async def job(ctx: RunContext):
        yield "done"

    async with prepared(tmp_path, lambda ctx: calls.append("x"), ScriptedModel(), job) as runs:
        info = await runs.start(asked(), model="job")
        assert fold(await events_of(runs, info.id)).text == "done"
    assert calls == []


async def test_tools_and_approvals_work_as_without(tmp_path: Path) -> None:
    ran: list[str] = []

    @tool(needs_approval=True)
    async def send(to: str) -> str:
        """Send."""
        ran.append(to)
        return "sent"

    model = ScriptedModel(["I send. ", call("send", {"to": "all"})], ["Sent."])
    prepares: list[int] = []

    async def prepare(ctx: RunContext) -> list[tokenwire.Message]:
        prepares.append(1)
        return [system(f"try {len(prepares)}"), *ctx.messages]

    options: dict[str, Any] = {"tools": ToolSet.of([send])}
    async with prepared(tmp_path, prepare, model, **options) as first:
        info = await first.start(asked(), model="scripted")
        events = await events_of(first, info.id, lambda e: isinstance(e, m.RunWait))
        approval = events[-1].pending[0]
        crash(first)
        async with prepared(tmp_path, prepare, model, **options) as second:
            await asyncio.sleep(3 * LEASE + 0.5)
            assert (await second.info(info.id)).state == "waiting"
            await second.approve(info.id, approval, approved=True, arguments={"to": "eve"})
            state = fold(await events_of(second, info.id))
    assert (state.outcome, state.text, ran) == ("complete", "I send. Sent.", ["eve"])
    assert prepares == [1], "it was run again, though its conversation is stored"
    assert texts(model, 1)[0] == "try 1"


async def test_another_version_and_none_are_not_mixed(tmp_path: Path) -> None:
    model = ScriptedModel(["never"])

    async def slow(ctx: RunContext) -> None:
        ctx.progress(0.1)
        await asyncio.sleep(60)

    for other in (Preparation(slow, version="2"), None):
        path = tmp_path / str(other)
        path.mkdir()
        async with prepared(path, slow, model) as first:
            info = await first.start(asked(), model="scripted")
            await events_of(first, info.id, lambda e: isinstance(e, m.RunProgress))
            crash(first)
            async with prepared(path, other, model) as second:
                state = fold(await events_of(second, info.id))
        assert (state.outcome, state.end_reason) == ("interrupted", "agent_changed")
    assert model.requests == []


async def test_a_run_from_before_is_not_prepared_and_a_key_names_the_same_run(
    tmp_path: Path,
) -> None:
    model, calls = ScriptedModel(["Once."]), []
    async with prepared(tmp_path, None, model) as first:
        info = await first.start(asked(), model="scripted", key="k")
        await events_of(first, info.id)
    async with prepared(tmp_path, lambda ctx: calls.append(1), model) as second:
        again = await second.start(asked(), model="scripted", key="k")
        assert (again.id, again.created_now) == (info.id, False)
    assert (len(model.requests), calls) == (1, [])


async def test_the_host_sees_what_the_model_received(tmp_path: Path) -> None:
    ends: list[EndedRun] = []

    async def prepare(ctx: RunContext) -> list[tokenwire.Message]:
        return [system("private context"), *ctx.messages]

    async with prepared(tmp_path, prepare, ScriptedModel(["ok"]), on_end=ends.append) as runs:
        info = await runs.start(asked("Why?"), model="scripted")
        events = await events_of(runs, info.id)
        received = await runs.model_input(info.id)
        assert [message.text for message in received] == ["private context", "Why?"]
        async with asyncio.timeout(40):
            while not ends:
                await asyncio.sleep(0.02)
        assert ends[0].model_input == received
        assert [message.text for message in ends[0].input] == ["Why?"]
        shown = str(events) + str(await runs.snapshot(info.id))
        assert "private context" not in shown


def effects_of(effects: list[str], model: ScriptedModel) -> Callable[[RunContext], Any]:
    async def effect(name: str) -> str:
        effects.append(name)
        await asyncio.sleep(PAUSE)
        return name.upper()

    async def prepare(ctx: RunContext) -> list[tokenwire.Message]:
        await asyncio.sleep(PAUSE)
        await ctx.say("Begin. ")
        first = await ctx.step("first", effect, "a")
        ctx.data("first", first)
        await asyncio.sleep(PAUSE)
        again, second = await asyncio.gather(
            ctx.step("again", effect, "x", idempotent=True), ctx.step("second", effect, "b")
        )
        ctx.state({"both": [again, second]})
        await ctx.say("Ready. ")
        await asyncio.sleep(PAUSE)
        return [system(f"{first}{second}"), *ctx.messages]

    return prepare


@pytest.mark.parametrize("cut", range(1, 27))
async def test_a_worker_that_dies_there(cut: int, tmp_path: Path) -> None:
    effects: list[str] = []
    model = ScriptedModel(["Model ", "words."])
    prepare = effects_of(effects, model)
    async with prepared(tmp_path, prepare, model) as first:
        info = await first.start(asked(), model="scripted")
        seen = await events_of(first, info.id, lambda e: e.seq >= cut or isinstance(e, m.RunEnd))
        crash(first)
        async with prepared(tmp_path, prepare, model) as second:
            events = await events_of(second, info.id)
    assert [e.seq for e in events] == list(range(1, len(events) + 1))
    assert events[: len(seen)] == seen, "what a reader had has changed"
    state: Fold = fold(events)
    assert effects.count("a") <= 1
    assert effects.count("b") <= 1
    assert effects.count("x") <= 2
    assert len(model.requests) <= 2
    assert all(texts(model, n)[0] == "AB" for n in range(len(model.requests)))
    if state.outcome == "complete":
        assert state.text == "Begin. Ready. Model words."
        assert state.shared == {"both": ["X", "B"]}
        assert sum(isinstance(e, m.Data) for e in events) == 1
        assert (effects.count("a"), effects.count("b")) == (1, 1)
    else:
        assert (state.outcome, state.end_reason) == ("interrupted", "step_in_doubt")
        in_doubt = {s.name for s in state.steps if s.kind == "task" and s.status != "complete"}
        assert in_doubt & {"first", "second"}


@pytest.mark.parametrize(
    "bad",
    [7, "name", lambda: None, lambda a, b: None],
)
def test_what_is_no_preparation(bad: Any) -> None:
    with pytest.raises(ConfigError):
        preparation_of(bad)


def test_a_generator_is_refused_with_the_way_out() -> None:
    async def words(ctx: RunContext):
        yield "x"

    with pytest.raises(ConfigError, match=r"ctx\.say"):
        Live(prepare=words)


async def test_live_prepares() -> None:
    model = ScriptedModel(["ok"])

    async def prepare(ctx: RunContext) -> list[tokenwire.Message]:
        return [system(str(ctx.app)), *ctx.messages]

    live = Live(models=["m"], registry=model, prepare=prepare, app="the app")  # type: ignore[arg-type]
    async with live.lifespan():
        live.runs.worker.http = model  # type: ignore[assignment]
        response = await live.start("Hello")
        await events_of(live.runs, response.headers["tokenwire-run"])
    assert texts(model) == ["the app", "Hello"]


def test_every_wire_shows_a_preparation() -> None:
    import httpx

    from support.server import simulator
    from tokenwire.providers.registry import Registry

    def prepare(ctx: RunContext) -> None:
        ctx.data("sources", ["https://docs.example/a"])
        ctx.progress(0.5, "reading")

    registry = Registry(demo_url=simulator().server.url + "/v1", env={})
    settings = Settings(port=0, graceful_stop=2.0, access_log=False)
    app = create_app(settings, registry=registry, prepare=prepare)
    with (
        ThreadedServer(app) as server,
        httpx.Client(base_url=server.url, timeout=30, trust_env=False) as client,
    ):
        run = client.post("/v1/runs", json={"prompt": "scenario:text"}).json()["id"]
        native = client.get(f"/v1/runs/{run}/events").text
        assert '"sources"' in native
        messages = [{"role": "user", "content": "scenario:text"}]
        body: dict[str, Any] = {"model": "demo", "messages": messages}
        said = client.post("/v1/chat/completions", json=body).json()
        text = said["choices"][0]["message"]["content"]
        assert len(text) > 100
        said = client.post("/v1/messages", json={**body, "max_tokens": 10_000}).json()
        assert "".join(b.get("text", "") for b in said["content"]) == text
        said = client.post("/v1/responses", json={"model": "demo", "input": "scenario:text"}).json()
        pieces = [c["text"] for item in said["output"] for c in item.get("content", [])]
        assert "".join(pieces) == text
        parts = [{"type": "text", "text": "scenario:text"}]
        message = {"id": "m1", "role": "user", "parts": parts}
        chat = client.post("/api/chat", json={"id": "chat-1", "messages": [message]})
        assert '"data-sources"' in chat.text
        thread = {"threadId": "t", "runId": "r", "state": {}, "tools": [], "context": []}
        asked = {"id": "m1", "role": "user", "content": "scenario:text"}
        events = client.post("/ag-ui", json={**thread, "messages": [asked], "forwardedProps": {}})
        assert '"sources"' in events.text


def test_the_command_prepares(tmp_path: Path) -> None:
    import httpx

    file = tmp_path / "my_prepare.py"
    file.write_text("async def prepare(ctx):\n    ctx.data('sources', [ctx.prompt])\n")
    with background(
        "serve", "--port", "0", "--store", "memory:", "--prepare", f"{file}:prepare"
    ) as (_, line):
        address = line.split(" at ")[1].split()[0]
        with httpx.Client(base_url=address, timeout=30, trust_env=False) as client:
            run = client.post("/v1/runs", json={"prompt": "Hi"}).json()["id"]
            assert '"payload":["Hi"]' in client.get(f"/v1/runs/{run}/events").text
