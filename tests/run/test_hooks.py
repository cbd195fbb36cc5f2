"""What the application decides of a run: before it exists, and around each of its tools."""

from __future__ import annotations

import asyncio
import threading
from contextlib import asynccontextmanager
from typing import Annotated, Any

import pytest
from starlette.exceptions import HTTPException
from starlette.testclient import TestClient

import tokenwire
from support.spine import run_async
from tokenwire import CallRequest, CallResult, LoopLimits, PerCall, StartRequest, ToolContext
from tokenwire.errors import ConfigError, HookError, KeyReusedError, StartRefusedError
from tokenwire.events import model as m
from tokenwire.log.open import open_store
from tokenwire.relay.runs import Runs
from tokenwire.run.hooks.hook import Hooks
from tokenwire.server import Live
from tokenwire.server.settings import Settings
from tokenwire.testing import ScriptedModel, call
from tokenwire.tools.registry import ToolSet, tool

HELLO = tokenwire.Request(messages=[tokenwire.user("Hello")])


async def events_of(runs: Runs, run: str, principal: str = "") -> list[Any]:
    follower = await runs.follow(run, principal=principal)
    events: list[Any] = []
    try:
        async with asyncio.timeout(60):
            while (batch := await follower.next()) is not None:
                events += [event for _, event in batch.events()]
    finally:
        follower.close()
    return events


@asynccontextmanager
async def opened(model: ScriptedModel, *, store: Any = "memory:", **options: Any):
    tools = options.pop("tools", ())
    app = options.pop("app", None)
    settings = {n: options.pop(n) for n in ("owner", "lease") if n in options}
    store = open_store(store) if isinstance(store, str) else store
    runs = Runs(
        store,
        registry=model,
        http=model,
        tools=ToolSet.of(tools),
        app=app,
        hooks=Hooks(**options) if options else None,
        **settings,
    )
    await runs.open()
    try:
        yield runs
    finally:
        await runs.aclose()


def of(events: list[Any], kind: type) -> list[Any]:
    return [event for event in events if isinstance(event, kind)]


def ran(model: ScriptedModel, request: Any = HELLO, **options: Any) -> list[Any]:
    """The events of one run."""

    async def main() -> list[Any]:
        async with opened(model, **options) as runs:
            info = await runs.start(
                request, model="any", thread="t", principal="ann", metadata={"team": "blue"}
            )
            return await events_of(runs, info.id, "ann")

    return run_async(main())


def asked_for(name: str, **arguments: Any) -> ScriptedModel:
    return ScriptedModel([call(name, arguments)], ["Done."])


# --- what a tool knows -----------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["async", "plain"])
def test_a_tool_knows_its_run_its_caller_and_the_hosts_object(kind: str) -> None:
    seen: list[Any] = []

    def note(ctx: ToolContext) -> str:
        seen.append((ctx.run, ctx.thread, ctx.principal, ctx.metadata, ctx.app["name"]))
        return "ok"

    async def note_async(ctx: ToolContext) -> str:
        return note(ctx)

    function = note_async if kind == "async" else note
    model = asked_for(function.__name__)
    events = ran(model, tools=[function], app={"name": "host"})
    run = of(events, m.RunStart)[0].run
    assert seen == [(run, "t", "ann", {"team": "blue"}, "host")]


class Sessions:
    """Stands for a database: what was opened, and how it was closed."""

    def __init__(self) -> None:
        self.opened = 0
        self.closed: list[str] = []
        self.ready = asyncio.Event()

    @asynccontextmanager
    async def session(self):
        self.opened += 1
        try:
            yield self
        except BaseException as error:
            self.closed.append(type(error).__name__)
            raise
        else:
            self.closed.append("committed")


async def new_session(ctx: ToolContext):
    async with ctx.app.session() as session:
        yield session


@pytest.mark.parametrize(
    ("how", "closed", "code"),
    [
        ("returns", "committed", "ok"),
        ("raises", "ValueError", "exception"),
        ("hangs", "CancelledError", "timeout"),
        ("is cancelled", "CancelledError", "cancelled"),
    ],
)
def test_a_value_of_a_call_ends_with_it(how: str, closed: str, code: str) -> None:
    @tool(timeout=0.2 if how == "hangs" else 60)
    async def work(text: str, session: Annotated[Sessions, PerCall(new_session)]) -> str:
        session.ready.set()
        if how == "raises":
            raise ValueError("no")
        if how != "returns":
            await asyncio.sleep(3600)
        return text

    assert list(work.parameters["properties"]) == ["text"], "the model is not told of it"

    async def main() -> None:
        app = Sessions()
        async with opened(asked_for("work", text="x"), tools=[work], app=app) as runs:
            info = await runs.start(HELLO, model="any")
            if how == "is cancelled":
                await asyncio.wait_for(app.ready.wait(), 60)
                await runs.cancel(info.id)
            events = await events_of(runs, info.id)
        ends = of(events, m.ToolResult) + of(events, m.ToolError)
        assert [getattr(end, "code", "ok") for end in ends] == [code]
        assert (app.opened, app.closed) == (1, [closed])

    run_async(main())


async def later() -> int:
    return 1


def test_values_of_plain_tools_and_of_generators() -> None:
    log: list[str] = []

    def one():
        log.append("open")
        yield 1
        log.append("close")

    @tool
    def plain(first: int = PerCall(one)) -> int:  # type: ignore[assignment]
        return first + 1

    @tool
    async def pieces(first: Annotated[int, PerCall(lambda: 2)]):
        yield "a"
        yield "b" * first

    model = ScriptedModel([call("plain"), call("pieces", call_id="c2")], ["Done."])
    events = ran(model, tools=[plain, pieces])
    assert {r.name: r.content for r in of(events, m.ToolResult)} == {"plain": 2, "pieces": "abb"}
    assert log == ["open", "close"]

    with pytest.raises(ConfigError, match="must be 'async def'"):

        @tool
        def bad(value: Annotated[int, PerCall(later)]) -> int:
            return value

    with pytest.raises(ConfigError, match="ToolContext, or nothing"):
        PerCall(lambda a, b: 1)


# --- before_start ----------------------------------------------------------------------------


def test_a_run_is_changed_before_it_exists_and_the_log_has_the_change() -> None:
    def before_start(start: StartRequest) -> None:
        assert (start.principal, start.thread, start.app) == ("ann", "t", None)
        start.messages = [*start.messages, tokenwire.system("Be brief.")]
        start.request.temperature = 0.5
        start.metadata["cost"] = "low"
        start.limits = LoopLimits(steps=1)

    async def main() -> None:
        model = ScriptedModel(["Hi."])
        async with opened(model, before_start=before_start) as runs:
            info = await runs.start(
                HELLO, model="any", thread="t", principal="ann", metadata={"team": "blue"}
            )
            assert info.metadata == {"team": "blue", "cost": "low"}
            events = await events_of(runs, info.id, "ann")
            assert of(events, m.RunStart)[0].metadata == {"team": "blue", "cost": "low"}
            snapshot = await runs.snapshot(info.id, principal="ann")
            assert [m.text for m in snapshot.input] == ["Hello", "Be brief."]
            assert model.requests[0]["temperature"] == 0.5
            assert [m["content"] for m in model.requests[0]["messages"]] == ["Hello", "Be brief."]
            assert [m.text for m in HELLO.messages] == ["Hello"], "the caller's own is untouched"

    run_async(main())


@pytest.mark.parametrize("kind", ["plain", "async"])
def test_a_refusal_starts_nothing(kind: str) -> None:
    def before_start(start: StartRequest) -> None:
        start.refuse("the month's budget is spent", status=402, code="budget", retry_after=60)

    async def before_start_async(start: StartRequest) -> None:
        before_start(start)

    async def main() -> None:
        model = ScriptedModel(["Hi."])
        hook = before_start if kind == "plain" else before_start_async
        async with opened(model, before_start=hook) as runs:
            with pytest.raises(StartRefusedError) as caught:
                await runs.start(HELLO, model="any", thread="t", key="k")
            error = caught.value
            assert (error.http_status, error.code, error.retry_after) == (402, "budget", 60)
            assert await runs.thread("t") == []
            assert await runs.named("k") is None
        assert model.requests == []

    run_async(main())


@pytest.mark.parametrize(
    "wrong",
    [
        lambda start: 1 / 0,
        lambda start: "no",
        lambda start: setattr(start, "messages", []),
        lambda start: setattr(start, "metadata", {"x": object()}),
        lambda start: setattr(start, "limits", {"steps": 1}),
        lambda start: setattr(start, "thread", "another"),
        lambda start: threading.Event().wait(60),
    ],
    ids=["raises", "returns", "messages", "metadata", "limits", "read-only", "hangs"],
)
def test_a_mistake_in_before_start_is_one_of_the_application(wrong: Any, caplog: Any) -> None:
    async def main() -> None:
        model = ScriptedModel(["Hi."])
        hooks = {"before_start": lambda start: wrong(start), "timeout": 0.5}
        async with opened(model, **hooks) as runs:
            with pytest.raises(HookError) as caught:
                await runs.start(HELLO, model="any", thread="t")
            assert caught.value.http_status == 500
            assert "before_start" in caught.value.message
            assert "division" not in caught.value.message
            assert await runs.thread("t") == []
        assert model.requests == []

    run_async(main())
    assert "before_start" in caplog.text


def test_a_request_that_comes_again_calls_it_once() -> None:
    calls: list[str | None] = []

    async def before_start(start: StartRequest) -> None:
        calls.append(start.key)
        await asyncio.sleep(0)
        start.metadata["number"] = len(calls)

    async def main() -> None:
        async with opened(ScriptedModel(["Hi."]), before_start=before_start) as runs:
            starts = (runs.start(HELLO, model="any", key="k") for _ in range(5))
            infos = await asyncio.gather(*starts)
            infos.append(await runs.start(HELLO, model="any", key="k"))
            assert len({info.id for info in infos}) == 1
            assert [info.created_now for info in infos].count(True) == 1
            assert {info.metadata["number"] for info in infos if info.metadata} == {1}
            other = tokenwire.Request(messages=[tokenwire.user("Else")])
            with pytest.raises(KeyReusedError):
                await runs.start(other, model="any", key="k")
            await runs.start(HELLO, model="any", key="k", principal="eve")
        assert calls == ["k", "k"], "once for each principal's key"

    run_async(main())


# --- before_tool -----------------------------------------------------------------------------


def transfers() -> tuple[Any, list[Any]]:
    done: list[Any] = []

    @tool
    def transfer(to: str, amount: int) -> str:
        done.append((to, amount))
        return f"sent {amount} to {to}"

    return transfer, done


@pytest.mark.parametrize("approval", [False, True])
@pytest.mark.parametrize("kind", ["plain", "async"])
def test_changed_arguments_are_those_of_log_approval_and_tool(kind: str, approval: bool) -> None:
    done: list[int] = []

    @tool(needs_approval=lambda arguments: approval and arguments["amount"] > 0)
    def pay(amount: int) -> int:
        done.append(amount)
        return amount

    def before_tool(request: CallRequest) -> None:
        assert request.arguments == {"amount": 1_000_000}
        request.arguments["amount"] = 5

    async def before_tool_async(request: CallRequest) -> None:
        before_tool(request)

    async def main() -> None:
        hook = before_tool if kind == "plain" else before_tool_async
        model = asked_for("pay", amount=1_000_000)
        async with opened(model, tools=[pay], before_tool=hook) as runs:
            info = await runs.start(HELLO, model="any")
            reader = asyncio.create_task(events_of(runs, info.id))
            if approval:
                follower = await runs.follow(info.id)
                request = None
                while request is None:
                    batch = await follower.next()
                    assert batch is not None
                    found = [e for _, e in batch.events() if isinstance(e, m.ApprovalRequest)]
                    request = found[0] if found else None
                follower.close()
                assert request.arguments == {"amount": 5}
                await runs.approve(info.id, request.approval_id, approved=True)
            events = await reader
        assert done == [5]
        assert [start.arguments for start in of(events, m.ToolStart)] == [{"amount": 5}]
        assert [end.outcome for end in of(events, m.RunEnd)] == ["complete"]
        assert len(of(events, m.ApprovalRequest)) == approval

    run_async(main())


def test_a_call_is_refused_or_answered_without_its_tool() -> None:
    transfer, done = transfers()

    def before_tool(request: CallRequest) -> Any:
        if request.arguments["to"] == "eve":
            request.refuse("eve is on the list")
        return request.answer({"cached": True})

    model = ScriptedModel(
        [
            call("transfer", {"to": "eve", "amount": 1}),
            call("transfer", {"to": "bob", "amount": 1}, call_id="c2"),
        ],
        ["Done."],
    )
    events = ran(model, tools=[transfer], before_tool=before_tool)
    assert done == []
    assert [(e.code, e.message) for e in of(events, m.ToolError)] == [
        ("denied", "eve is on the list")
    ]
    assert [e.content for e in of(events, m.ToolResult)] == [{"cached": True}]
    assert of(events, m.ToolStart) == []
    assert events[-1].outcome == "complete"
    assert "eve is on the list" in str(model.requests[1]["messages"])


@pytest.mark.parametrize(
    ("wrong", "seconds"),
    [
        (lambda request: 1 / 0, 60),
        (lambda request: {"to": "bob"}, 60),
        (lambda request: request.arguments.clear(), 60),
        (lambda request: setattr(request, "arguments", {"to": object(), "amount": 1}), 60),
        (lambda request: request.answer(object()), 60),
        (lambda request: threading.Event().wait(60), 0.5),
    ],
    ids=["raises", "returns", "does not fit", "is no JSON", "answers no JSON", "hangs"],
)
def test_a_mistake_in_before_tool_ends_its_run_and_no_other(
    wrong: Any, seconds: float, caplog: Any
) -> None:
    transfer, done = transfers()

    async def main() -> None:
        def before_tool(request: CallRequest) -> Any:
            return wrong(request) if request.metadata else None

        script = [call("transfer", {"to": "bob", "amount": 1})]
        model = ScriptedModel(script, script, ["Done."])
        options = {"tools": [transfer], "before_tool": before_tool, "timeout": seconds}
        async with opened(model, **options) as runs:
            bad = await runs.start(HELLO, model="any", metadata={"bad": True})
            events = await events_of(runs, bad.id)
            end, error = events[-1], of(events, m.Error)[0]
            assert (end.outcome, end.reason, error.code) == ("error", "hook_failed", "hook_failed")
            assert error.message.startswith("before_tool ")
            assert "division" not in error.message
            assert [e.code for e in of(events, m.ToolError)] == ["hook_failed"]
            assert done == []
            if seconds < 1:
                return
            good = await runs.start(HELLO, model="any")
            assert (await events_of(runs, good.id))[-1].outcome == "complete"
        assert done == [("bob", 1)]

    run_async(main())
    assert "before_tool" in caplog.text


def test_a_cancel_reaches_a_hook() -> None:
    transfer, done = transfers()

    async def main() -> None:
        at_work, ended = asyncio.Event(), asyncio.Event()

        async def before_tool(request: CallRequest) -> None:
            at_work.set()
            try:
                await asyncio.sleep(3600)
            finally:
                ended.set()

        model = asked_for("transfer", to="bob", amount=1)
        options = {"tools": [transfer], "before_tool": before_tool, "timeout": 3600}
        async with opened(model, **options) as runs:
            info = await runs.start(HELLO, model="any")
            await asyncio.wait_for(at_work.wait(), 60)
            await runs.cancel(info.id)
            events = await events_of(runs, info.id)
            await asyncio.wait_for(ended.wait(), 60)
        assert events[-1].outcome == "cancelled"
        assert [e.code for e in of(events, m.ToolError)] == ["cancelled"]
        assert done == []

    run_async(main())


# --- after_tool ------------------------------------------------------------------------------


@tool
async def secret(ctx: ToolContext, fails: bool = False):
    ctx.progress(0.5, "found safe-4711")
    yield "the number is "
    if fails:
        raise ValueError("safe-4711 is wrong")
    yield "safe-4711"


@pytest.mark.parametrize("kind", ["changes", "returns", "error"])
def test_a_result_is_redacted_before_anybody_sees_it(kind: str) -> None:
    seen: list[Any] = []

    async def after_tool(request: CallRequest, result: CallResult) -> Any:
        seen.append((request.name, result.error))
        text = result.content.replace("safe-4711", "***")
        if kind == "returns":
            return text
        result.content = text
        return None

    model = asked_for("secret", fails=kind == "error")
    events = ran(model, tools=[secret], after_tool=after_tool)
    assert seen == [("secret", "exception" if kind == "error" else None)]
    assert "safe-4711" not in str(events)
    assert "safe-4711" not in str(model.requests)
    assert "***" in str(model.requests[1])
    assert events[-1].outcome == "complete"


@pytest.mark.parametrize("how", ["raises", "hangs", "is no JSON"])
def test_a_mistake_in_after_tool_shows_nothing_of_the_result(how: str) -> None:
    async def after_tool(request: CallRequest, result: CallResult) -> Any:
        if how == "raises":
            raise ValueError("safe-4711")
        if how == "hangs":
            await asyncio.sleep(3600)
        return object()

    events = ran(asked_for("secret"), tools=[secret], after_tool=after_tool, timeout=0.5)
    assert "safe-4711" not in str(events)
    assert (events[-1].outcome, events[-1].reason) == ("error", "hook_failed")
    assert [e.code for e in of(events, m.ToolError)] == ["hook_failed"]


# --- recovery --------------------------------------------------------------------------------


def test_a_call_that_starts_again_has_the_changed_arguments_and_says_so(tmp_path: Any) -> None:
    """A lost worker had started an idempotent tool: ``before_tool`` is not called again."""
    before: list[str] = []
    after: list[bool] = []
    done: list[int] = []

    async def main() -> None:
        at_work = asyncio.Event()

        @tool(idempotent=True, timeout=3600)
        async def pay(amount: int) -> int:
            done.append(amount)
            if len(done) == 1:
                at_work.set()
                await asyncio.sleep(3600)
            return amount

        def before_tool(request: CallRequest) -> None:
            before.append(request.call_id)
            request.arguments = {"amount": 5}

        def after_tool(request: CallRequest, result: CallResult) -> None:
            assert request.arguments == {"amount": 5}
            after.append(request.is_restart)

        url = f"sqlite:{tmp_path / 'runs.db'}"
        hooks = {"before_tool": before_tool, "after_tool": after_tool, "tools": [pay]}
        model = asked_for("pay", amount=1)
        lost = Runs(
            open_store(url),
            registry=model,  # type: ignore[arg-type]
            http=model,  # type: ignore[arg-type]
            tools=ToolSet.of([pay]),
            hooks=Hooks(before_tool=before_tool, after_tool=after_tool),
            owner="elsewhere:1:a",
            lease=0.6,
        )
        await lost.open()
        info = await lost.start(HELLO, model="any")
        await asyncio.wait_for(at_work.wait(), 60)
        # A kill says nothing any more, so its last words must not reach the log.
        lost.owned[info.id].producer.epoch = 0
        assert lost._tender is not None
        lost._tender.cancel()
        lost.owned[info.id].task.cancel()
        async with opened(model, store=url, owner="elsewhere:2:b", lease=0.6, **hooks) as runs:
            events = await events_of(runs, info.id)
        await lost.store.close()
        assert events[-1].outcome == "complete"
        assert [e.arguments for e in of(events, m.ToolStart)] == [{"amount": 5}] * 2
        assert (done, after) == ([5, 5], [True])
        assert len(before) == 1

    run_async(main())


# --- the server ------------------------------------------------------------------------------


def test_every_wire_says_a_refusal_in_its_own_form() -> None:
    def before_start(start: StartRequest) -> None:
        if "http" in start.messages[-1].text:
            raise HTTPException(429, "slow down", headers={"Retry-After": "7"})
        start.refuse("the budget is spent", status=402, code="budget")

    live = Live("memory:", models=["demo"], user=lambda _: "ann", before_start=before_start)
    message = {"role": "user", "content": "Hello"}
    parts = {"id": "m1", "role": "user", "parts": [{"type": "text", "text": "Hello"}]}
    ag_ui = {
        "threadId": "t",
        "runId": "r",
        "state": {},
        "messages": [{"id": "1", **message}],
        "tools": [],
        "context": [],
        "forwardedProps": {},
    }
    with TestClient(_app(live)) as client:
        for path, body in {
            "/ai/v1/runs": {"prompt": "Hello"},
            "/ai/api/chat": {"id": "chat-1", "messages": [parts], "trigger": "submit-message"},
            "/ai/ag-ui": ag_ui,
            "/ai/v1/chat/completions": {"model": "demo", "messages": [message]},
            "/ai/v1/responses": {"model": "demo", "input": "Hello"},
            "/ai/v1/messages": {"model": "demo", "max_tokens": 9, "messages": [message]},
        }.items():
            answer = client.post(path, json=body)
            assert answer.status_code == 402, (path, answer.text)
            assert "the budget is spent" in answer.text, path
        error = client.post("/ai/v1/runs", json={"prompt": "Hello"}).json()["error"]
        assert error["code"] == "budget"
        again = client.post("/ai/v1/runs", json={"prompt": "http"})
        assert (again.status_code, again.headers["retry-after"]) == (429, "7")
        with client.websocket_connect("/ai/ws") as socket:
            socket.send_json({"op": "start", "request": {"prompt": "Hello"}})
            answer = socket.receive_json()
            assert (answer["op"], answer["error"]["code"]) == ("error", "budget")


def _app(live: Live) -> Any:
    from starlette.applications import Starlette
    from starlette.routing import Mount

    return Starlette(routes=[Mount("/ai", live.asgi)], lifespan=live.lifespan)


def test_hooks_are_named_by_settings_and_refused_at_the_start(tmp_path: Any) -> None:
    module = tmp_path / "hooks.py"
    module.write_text("def refuse(start):\n    start.refuse('no', status=418)\n\nnothing = 3\n")
    live = Live(
        "memory:",
        models=["demo"],
        user=lambda _: "ann",
        settings=Settings(before_start=f"{module}:refuse"),
    )
    with TestClient(_app(live)) as client:
        assert client.post("/ai/v1/runs", json={"prompt": "Hello"}).status_code == 418
    for wrong in (Settings(before_start=f"{module}:nothing"), Settings(after_tool="no_such:x")):
        with pytest.raises(ConfigError):
            Live("memory:", settings=wrong)
    with pytest.raises(ConfigError, match="after_tool must take 2"):
        Live("memory:", after_tool=lambda request: None)  # type: ignore[arg-type,misc]
    with pytest.raises(ConfigError, match="generator"):
        Hooks(before_tool=lambda request: (yield))
