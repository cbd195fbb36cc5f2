"""The a2a-sdk's client against the server: every operation, on both bindings."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from a2a.types import a2a_pb2 as pb
from a2a.utils.errors import (
    InvalidParamsError,
    TaskNotCancelableError,
    TaskNotFoundError,
    UnsupportedOperationError,
)
from google.protobuf.json_format import MessageToDict

from support.a2a_client import BINDINGS, Seen, client, data, in_loop, question, state_of
from support.server import simulator
from tokenwire import RunContext, agent, tool
from tokenwire.providers.registry import Registry
from tokenwire.server.app import create_app
from tokenwire.server.settings import Settings
from tokenwire.server.start import ThreadedServer
from tokenwire.tools.demo import delete_file
from tokenwire.tools.registry import ToolSet

SLOW = "".join(f"{number} " for number in range(1, 91))


@tool(executor="client")
def get_weather(city: str) -> dict[str, str]:
    """The weather, which the client knows."""
    raise NotImplementedError


@agent(name="clerk")
async def clerk(ctx: RunContext) -> None:
    """An agent of one's own, which shows what it does and asks."""
    ctx.progress(0.5, "reading")
    ctx.data("order", {"number": 7})
    if (await ctx.request_approval("send", {"to": "ann"}, reason="Send it to ann?")).approved:
        await ctx.say("sent")
    else:
        await ctx.say("kept")


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    registry = Registry(demo_url=simulator().server.url + "/v1", env={})
    tools = ToolSet([delete_file, get_weather])
    app = create_app(
        Settings(port=0, access_log=False, model=["demo"]),
        registry=registry,
        tools=tools,
        agents=[clerk],
    )
    with ThreadedServer(app) as server:
        yield server.url


def native(url: str, run: str) -> dict[str, Any]:
    return httpx.get(f"{url}/v1/runs/{run}", trust_env=False).json()


@pytest.mark.parametrize("binding", BINDINGS)
@in_loop
async def test_the_same_task_streamed_sent_and_polled(url: str, binding: str) -> None:
    async with (
        client(url, binding, tenant="demo") as a,
        client(url, binding, streaming=False, tenant="demo") as b,
    ):
        asked = question("scenario:slow?rate=500")
        seen = await Seen().read(a.send_message(asked))
        assert (seen.kinds[0], seen.states[0]) == ("task", "SUBMITTED")
        assert (seen.states[-1], seen.text) == ("COMPLETED", SLOW)
        assert len(seen.kinds) > 5  # as it is written
        assert seen.task.history[0].message_id == asked.message.message_id
        polled = await a.get_task(pb.GetTaskRequest(id=seen.task.id))
        assert (state_of(polled), polled.artifacts[0].parts[0].text) == ("COMPLETED", SLOW)
        assert polled.context_id == seen.task.context_id
        without = await a.get_task(pb.GetTaskRequest(id=seen.task.id, history_length=0))
        assert not without.history
        whole = await Seen().read(b.send_message(question("scenario:slow?rate=500")))
        assert (whole.kinds, whole.states, whole.text) == (["task"], ["COMPLETED"], SLOW)
        at_once = question("scenario:slow?rate=50")
        at_once.configuration.return_immediately = True
        early = await Seen().read(b.send_message(at_once))
        assert early.states[0] in ("SUBMITTED", "WORKING")
        await b.cancel_task(pb.CancelTaskRequest(id=early.task.id))


@pytest.mark.parametrize("binding", BINDINGS)
@pytest.mark.parametrize(
    ("scenario", "state", "word"),
    [
        ("error", "FAILED", ""),
        ("cut", "FAILED", ""),
        ("length", "FAILED", "length"),
        ("filter", "FAILED", "content_filter"),
        ("refusal", "REJECTED", ""),
    ],
)
@in_loop
async def test_a_failure_is_never_completed(
    url: str, binding: str, scenario: str, state: str, word: str
) -> None:
    async with client(url, binding, tenant="demo") as a:
        seen = await Seen().read(a.send_message(question(f"scenario:{scenario}")))
        polled = await a.get_task(pb.GetTaskRequest(id=seen.task.id))
    assert (seen.states[-1], state_of(polled)) == (state, state)
    assert seen.said
    assert "COMPLETED" not in seen.states
    if word:
        assert native(url, seen.task.id)["finish_reason"] == word


@pytest.mark.parametrize("binding", BINDINGS)
@in_loop
async def test_a_task_is_cancelled_and_only_once(url: str, binding: str) -> None:
    async with client(url, binding, tenant="demo") as a:
        stream = a.send_message(question("scenario:stall"))
        seen = await Seen().read(stream, most=3)
        cancelled = await a.cancel_task(pb.CancelTaskRequest(id=seen.task.id))
        assert state_of(cancelled) == "CANCELED"
        assert (await seen.read(stream)).states[-1] == "CANCELED"
        with pytest.raises(TaskNotCancelableError):
            await a.cancel_task(pb.CancelTaskRequest(id=seen.task.id))
        with pytest.raises(TaskNotFoundError):
            await a.cancel_task(pb.CancelTaskRequest(id="unknown-task-0123"))
        with pytest.raises(TaskNotFoundError):
            await a.get_task(pb.GetTaskRequest(id="unknown-task-0123"))


@pytest.mark.parametrize("binding", BINDINGS)
@pytest.mark.parametrize("how", ["word", "data", "no"])
@in_loop
async def test_an_approval_is_input_required(url: str, binding: str, how: str) -> None:
    async with client(url, binding, tenant="demo") as a:
        seen = await Seen().read(a.send_message(question("scenario:approval")))
        assert seen.states[-1] == "INPUT_REQUIRED"  # and the stream has ended
        approval = seen.asked["approvals"][0]
        assert approval["name"] == "delete_file"
        task = seen.task.id
        if how == "data":
            value = {"approvalId": approval["approvalId"], "approved": True}
            answer = data(value, task_id=task)
        else:
            answer = question("Approve." if how == "word" else "no", task_id=task)
        with pytest.raises(InvalidParamsError, match="approvalId"):
            await Seen().read(a.send_message(question("well, perhaps", task_id=task)))
        assert native(url, task)["state"] == "waiting"
        rest = await Seen().read(a.send_message(answer))
        assert rest.kinds[0] == "task"
        assert rest.states[0] in ("WORKING", "COMPLETED")  # the run may be faster than the answer
        assert rest.states[-1] == "COMPLETED"
        assert rest.task.id == task
        again = await Seen().read(a.send_message(answer))  # the message comes again
        assert (again.task.id, again.states[-1]) == (task, "COMPLETED")
        decided = next(iter(native(url, task)["tools"]))
        assert decided["approved"] is (how != "no")
        with pytest.raises(UnsupportedOperationError, match="ended"):
            await Seen().read(a.send_message(question("yes", task_id=task)))


@pytest.mark.parametrize("binding", BINDINGS)
@in_loop
async def test_a_client_tool_is_input_required(url: str, binding: str) -> None:
    async with client(url, binding, streaming=False, tenant="demo") as a:
        seen = await Seen().read(a.send_message(question("scenario:tool")))
        assert seen.states == ["INPUT_REQUIRED"]
        call = seen.asked["tools"][0]
        assert (call["name"], call["arguments"]) == ("get_weather", {"city": "Paris"})
        value = {"callId": call["callId"], "content": {"sky": "clear"}}
        done = await Seen().read(a.send_message(data(value, task_id=seen.task.id)))
        assert done.states == ["COMPLETED"]
        assert "clear" in str(native(url, seen.task.id)["tools"])


@in_loop
async def test_an_agent_of_ones_own_by_its_name(url: str) -> None:
    for binding in BINDINGS:
        async with client(url, binding, tenant="clerk") as a:
            seen = await Seen().read(a.send_message(question("go")))
            assert seen.asked["approvals"][0]["reason"] == "Send it to ann?"
            order = next(x for x in seen.task.artifacts if x.name == "order")
            assert MessageToDict(order.parts[0].data) == {"number": 7}
            done = await Seen().read(a.send_message(question("deny", task_id=seen.task.id)))
            assert (done.states[-1], done.task.artifacts[-1].parts[0].text) == ("COMPLETED", "kept")
            card = await a.get_extended_agent_card(pb.GetExtendedAgentCardRequest())
            assert {skill.id for skill in card.skills} == {"clerk", "demo"}


@pytest.mark.parametrize("binding", BINDINGS)
@in_loop
async def test_a_message_that_comes_again_is_the_same_task(url: str, binding: str) -> None:
    async with (
        client(url, binding, tenant="demo") as a,
        client(url, binding, streaming=False, tenant="demo") as b,
    ):
        asked = question("scenario:slow?rate=300")
        one, other, third = await asyncio.gather(
            Seen().read(a.send_message(asked)),
            Seen().read(a.send_message(asked)),
            Seen().read(b.send_message(asked)),
        )
        assert one.task.id == other.task.id == third.task.id
        assert one.text == other.text == third.text == SLOW
        changed = question("scenario:text", message_id=asked.message.message_id)
        with pytest.raises(InvalidParamsError):
            await Seen().read(b.send_message(changed))


@pytest.mark.parametrize("binding", BINDINGS)
@in_loop
async def test_a_context_is_a_conversation(url: str, binding: str) -> None:
    name = f"talk-{binding[:4]}"
    async with client(url, binding, streaming=False, tenant="demo") as a:
        tasks = [
            (await Seen().read(a.send_message(question("scenario:length", context_id=name)))).task
            for _ in range(3)
        ]
        assert {task.context_id for task in tasks} == {name}
        turns = httpx.get(f"{url}/v1/threads/{name}/turns", trust_env=False).json()
        assert len(turns["turns"]) == 3
        ids: list[str] = []
        token = ""
        while True:
            page = await a.list_tasks(
                pb.ListTasksRequest(context_id=name, page_size=2, page_token=token)
            )
            assert not any(task.artifacts for task in page.tasks)
            assert page.total_size == 3
            ids += [task.id for task in page.tasks]
            token = page.next_page_token
            if not token:
                break
        assert ids == [task.id for task in reversed(tasks)]
        everything = await a.list_tasks(pb.ListTasksRequest(include_artifacts=True))
        assert {*ids} <= {task.id for task in everything.tasks}
        none = await a.list_tasks(
            pb.ListTasksRequest(context_id=name, status=pb.TASK_STATE_COMPLETED)
        )
        assert not none.tasks
        with pytest.raises(InvalidParamsError, match="contextId"):
            wrong = question("yes", task_id=ids[0], context_id="another")
            await Seen().read(a.send_message(wrong))


@pytest.mark.parametrize("binding", BINDINGS)
@in_loop
async def test_subscribe_gives_the_task_first_then_what_is_missing(url: str, binding: str) -> None:
    async with client(url, binding, tenant="demo") as a:
        seen = await Seen().read(a.send_message(question("scenario:slow?rate=60")), most=4)
        task, part = seen.task.id, seen.text  # the client is gone, in the middle of a word
        request = pb.SubscribeToTaskRequest(id=task)
        now = await Seen().read(a.subscribe(request), most=1)
        assert now.kinds == ["task"]
        assert now.text.startswith(part)
        again = Seen()
        responses = a.subscribe(request, context=seen.resume)
        async for response in responses:
            again.take(response)
            if len(again.kinds) == 1:
                assert (again.kinds, again.text) == (["task"], part)
        assert (again.text, again.states[-1]) == (SLOW, "COMPLETED")
        # After the end: what a client misses by its cursor; without one A2A refuses it.
        late = await Seen().read(a.subscribe(request, context=seen.resume))
        assert (late.text, late.states[-1]) == (SLOW, "COMPLETED")
        with pytest.raises(UnsupportedOperationError, match="GetTask"):
            await Seen().read(a.subscribe(request))


@in_loop
async def test_a_subscriber_hears_of_a_wait_and_of_what_follows(url: str) -> None:
    async with client(url, tenant="demo") as a:
        asked = await Seen().read(a.send_message(question("scenario:approval")))
        task = asked.task.id
        watcher = a.subscribe(pb.SubscribeToTaskRequest(id=task))
        seen = await Seen().read(watcher, most=1)
        assert seen.states == ["INPUT_REQUIRED"]  # at once, though nothing happens
        await Seen().read(a.send_message(question("approve", task_id=task)))
        assert (await seen.read(watcher)).states[-1] == "COMPLETED"
