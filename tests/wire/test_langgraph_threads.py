"""The Agent Streaming Protocol beside its clients: channels, `since`, commands, who speaks."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from support.server import AS_A, AS_B, KEYS, Site, site
from tokenwire.events import model as m
from tokenwire.wire.langgraph.channels import CHANNELS, parse_filter
from tokenwire.wire.langgraph.thread_encoder import ThreadEncoder


@pytest.fixture(scope="module")
def here() -> Iterator[Site]:
    with site() as found:
        yield found


def command(here: Site, thread: str, method: str, **params: Any) -> Any:
    body = {"id": 7, "method": method, "params": params}
    answer = here.client.post(f"/langgraph/threads/{thread}/commands", json=body)
    assert answer.status_code == 200, answer.text
    assert answer.json()["id"] == 7
    return answer.json()


def start(here: Site, thread: str, text: str, **params: Any) -> str:
    message = {"type": "human", "content": text}
    told = command(here, thread, "run.start", input={"messages": [message]}, **params)
    assert told["type"] == "success", told
    return told["result"]["run_id"]


def settled(here: Site, thread: str, run: str) -> None:
    path = f"/langgraph/threads/{thread}/runs/{run}/join"
    assert here.client.get(path).status_code == 200


def events(here: Site, thread: str, **more: Any) -> list[Any]:
    body = {"channels": list(CHANNELS), **more}
    path = f"/langgraph/threads/{thread}/stream/events?live=no"
    answer = here.client.post(path, json=body)
    assert answer.status_code == 200, answer.text
    lines = answer.text.split("\n")
    assert answer.headers["content-type"].startswith("text/event-stream")
    return [json.loads(line[6:]) for line in lines if line.startswith("data: ")]


def lives(told: list[Any]) -> list[str]:
    return [one["params"]["data"]["event"] for one in told if one["method"] == "lifecycle"]


def test_since_any_event_the_rest_and_nothing_twice(here: Site) -> None:
    for text in ("scenario:tools?rate=2000", "scenario:text?rate=2000"):
        settled(here, "since", start(here, "since", text))
    whole = events(here, "since", since=0)
    numbers = [one["seq"] for one in whole]
    assert numbers == sorted(set(numbers))
    assert numbers[-1] < 1 << 53
    assert lives(whole) == ["running", "completed"] * 2
    for number in range(0, len(whole), 7):
        assert events(here, "since", since=numbers[number]) == whole[number + 1 :]
    assert events(here, "since", since=numbers[-1]) == []
    path, body = "/langgraph/threads/since/stream/events", {"channels": ["values"]}
    late = here.client.post(path, json={**body, "since": numbers[-1] + 1})
    assert (late.status_code, late.json()["error"]["code"]) == (400, "bad_cursor")


def test_a_reader_without_a_place_gets_the_newest_run_and_with_one_all(here: Site) -> None:
    for _ in range(3):
        settled(here, "many", start(here, "many", "scenario:text?rate=5000"))
    assert lives(events(here, "many")) == ["running", "completed"]
    assert lives(events(here, "many", since=0)) == ["running", "completed"] * 3


def test_channels_and_namespaces_choose(here: Site) -> None:
    settled(here, "chosen", start(here, "chosen", "scenario:tools?rate=2000"))
    every = events(here, "chosen")
    for channel in ("values", "messages", "tools", "updates", "lifecycle", "checkpoints"):
        told = events(here, "chosen", channels=[channel])
        assert told
        assert told == [one for one in every if one["method"] == channel]
    assert events(here, "chosen", namespaces=[["elsewhere"]]) == []
    assert events(here, "chosen", namespaces=[[]], depth=0) == every
    wanted = parse_filter({"channels": ["custom:a"], "namespaces": [["tools"]], "depth": 1})
    inside = {"namespace": ["tools:1", "x:2"], "data": {"name": "a"}}
    assert wanted.takes("custom", inside)
    assert not wanted.takes("custom", {**inside, "data": {"name": "b"}})
    assert not wanted.takes("custom", {**inside, "namespace": ["tools:1", "x:2", "y:3"]})
    assert not parse_filter({"channels": ["custom"], "namespaces": [["tools:2"]]}).takes(
        "custom", inside
    )


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"channels": []},
        {"channels": ["tasks"]},
        {"channels": ["custom:"]},
        {"channels": [1]},
        {"channels": ["values"], "namespaces": ["x"]},
        {"channels": ["values"], "namespaces": [[1]]},
        {"channels": ["values"], "depth": -1},
        {"channels": ["values"], "since": 1.5},
        {"channels": ["values"], "more": 1},
        [],
    ],
)
def test_a_bad_filter_is_refused_by_its_name(here: Site, body: Any) -> None:
    answer = here.client.post("/langgraph/threads/t/stream/events", json=body)
    assert answer.status_code == 400, answer.text
    assert answer.json()["message"] == answer.json()["error"]["message"]


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"id": 1, "method": "agent.getTree"}, "unknown_command"),
        ({"id": 1, "method": "state.fork", "params": {}}, "unknown_command"),
        ({"id": 1}, "invalid_argument"),
        ({"id": 1, "method": "run.start", "params": {"input": {"goal": "x"}}}, "invalid_argument"),
        ({"id": 1, "method": "run.start", "params": {"goto": "x"}}, "invalid_argument"),
        ({"id": 1, "method": "run.start"}, "invalid_argument"),
        ({"id": 1, "method": "input.respond", "params": {"responses": []}}, "invalid_argument"),
        (
            {"id": 1, "method": "input.respond", "params": {"interrupt_id": "a", "goto": "b"}},
            "invalid_argument",
        ),
        (
            {"id": 1, "method": "input.respond", "params": {"interrupt_id": "a", "response": 1}},
            "no_such_interrupt",
        ),
    ],
)
def test_a_command_that_is_not_done_says_so(here: Site, body: Any, code: str) -> None:
    told = here.client.post("/langgraph/threads/none/commands", json=body).json()
    assert (told["type"], told["id"], told["error"]) == ("error", 1, code)
    assert told["message"]
    odd = here.client.post("/langgraph/threads/none/commands", json={"id": "x"}).json()
    assert (odd["type"], odd["id"]) == ("error", None)
    elsewhere = {"configurable": {"thread_id": "other"}}
    message = {"type": "human", "content": "x"}
    told = command(here, "none", "run.start", input={"messages": [message]}, config=elsewhere)
    assert "thread_id" in told["message"]
    assert here.client.get("/langgraph/threads/none/runs").json() == []


def test_an_answer_goes_to_the_interrupt_that_it_names(here: Site) -> None:
    run = start(here, "asks", "scenario:approval?rate=2000")
    settled(here, "asks", run)
    told = events(here, "asks")
    (asked,) = [one["params"]["data"] for one in told if one["method"] == "input.requested"]
    assert lives(told) == ["running", "interrupted"]
    answer = {"decisions": [{"type": "approve"}]}
    other = command(here, "asks", "input.respond", interrupt_id="ap_other", response=answer)
    assert other["error"] == "no_such_interrupt"
    unclear = command(
        here, "asks", "input.respond", interrupt_id=asked["interrupt_id"], response="perhaps"
    )
    assert unclear["error"] == "invalid_argument"
    entry = {"interrupt_id": asked["interrupt_id"], "response": answer}
    for params in (
        {"responses": [{**entry, "update": {"x": 1}}]},
        {"responses": [{**entry, "goto": "node"}]},
        {"responses": [entry], "update": {"x": 1}},
        {"responses": [entry], "goto": "node"},
        {"responses": [entry], "interrupt_id": "ap_other"},
        {"responses": [entry], "response": answer},
        {**entry, "update": {"x": 1}},
        {**entry, "goto": [{"node": "n", "input": 1}]},
        {**entry, "config": {"configurable": {"temperature": 1}}},
        {**entry, "config": {"recursion_limit": 7}},
    ):
        refused = command(here, "asks", "input.respond", **params)
        assert refused["error"] == "invalid_argument", params
    assert events(here, "asks") == told
    entry = {"interrupt_id": asked["interrupt_id"], "response": answer, "namespace": []}
    reply = command(here, "asks", "input.respond", responses=[entry])
    assert (reply["type"], reply["meta"]) == ("success", {"applied_through_seq": told[-1]["seq"]})
    here.frames(f"/v1/runs/{run}/events")
    rest = events(here, "asks", since=told[-1]["seq"])
    assert lives(rest) == ["running", "completed"]
    left = [one for one in told if one["method"] != "input.requested"]  # it is answered
    assert [*left, *rest] == events(here, "asks") == events(here, "asks", since=0)
    answers = [one["params"]["data"] for one in rest if one["method"] == "input.answered"]
    assert answers == [{"interrupt_ids": [asked["interrupt_id"]]}] * 2  # when it is, and at the end
    legs = {one["event_id"].split(":")[1] for one in rest if one["method"] != "input.answered"}
    assert legs == {f"{run}~2"}
    assert here.client.get(f"/langgraph/threads/asks/runs/{run}~2").json()["run_id"] == run
    late = command(here, "asks", "input.respond", responses=[entry])
    assert late["error"] == "no_such_interrupt"


def test_of_two_answers_at_once_one_is_told_that_it_came_late(here: Site) -> None:
    run = start(here, "twice", "scenario:approval?rate=2000")
    settled(here, "twice", run)
    (asked,) = [one for one in events(here, "twice") if one["method"] == "input.requested"]
    name = asked["params"]["data"]["interrupt_id"]

    def respond(kind: str) -> tuple[str, str]:
        answer = {"decisions": [{"type": kind}]}
        reply = command(here, "twice", "input.respond", interrupt_id=name, response=answer)
        return reply.get("error") or reply["type"], kind

    with ThreadPoolExecutor() as pool:
        replies = set(pool.map(respond, ["approve", "reject"] * 3))
    here.frames(f"/v1/runs/{run}/events")
    (counts,) = [kind for reply, kind in replies if reply == "success"]
    assert {reply for reply, kind in replies if kind != counts} == {"no_such_interrupt"}


@pytest.mark.parametrize("checkpoint", ["{run}.input", "elsewhere", "root"])
def test_an_answer_from_another_state_than_the_one_that_waits_is_refused(
    here: Site, checkpoint: str
) -> None:
    thread = f"stale-{checkpoint.strip('{}')[:3]}"
    run = start(here, thread, "scenario:approval?rate=2000")
    settled(here, thread, run)
    body = {"assistant_id": "demo", "command": {"resume": True}}
    path = f"/langgraph/threads/{thread}/runs/wait"
    stale = {**body, "checkpoint_id": checkpoint.format(run=run)}
    refused = here.client.post(path, json=stale)
    assert (refused.status_code, refused.json()["error"]["field"]) == (400, "checkpoint")
    newest = here.client.get(f"/langgraph/threads/{thread}/state").json()["checkpoint"]
    done = here.client.post(path, json={**body, "checkpoint": newest})
    assert done.status_code == 200, done.text
    assert "__interrupt__" not in done.json()


def waits(*rest: m.Event) -> list[Any]:
    """The events on `lifecycle` and `input` of a run that waits for two approvals, then."""
    run: list[Any] = [m.RunStart(run="run-1", time=1), m.StepStart(step=1)]
    for part, name in enumerate("ab", 1):
        run.append(m.ToolCallStart(part=part, step=1, name="delete", call_id=name))
        run.append(m.ToolCallEnd(part=part, arguments={}))
    run += [
        m.ApprovalRequest(approval_id=f"ap_{name}", call_id=name, name="delete", arguments={})
        for name in "ab"
    ]
    run += [m.RunWait(reason="approval", pending=["ap_a", "ap_b"]), *rest]
    encoder = ThreadEncoder(history=[], created=1.8e9)
    made: list[Any] = []
    for number, event in enumerate(run, 1):
        event.seq = number
        made += encoder.take(event, f"{number}-{number:016x}")
    told: list[Any] = []
    for one in made:
        data = one["params"]["data"]
        if one["method"].startswith("input."):
            told.append(data.get("interrupt_ids") or data["interrupt_id"])
        elif one["method"] == "lifecycle":
            told.append(data["event"])
    return told


def answer_of(name: str) -> m.Event:
    return m.ApprovalAnswer(approval_id=f"ap_{name}", call_id=name, approved=True)


def test_each_answer_of_several_interrupts_is_told_and_what_lapses_at_the_end() -> None:
    before = ["running", "ap_a", "ap_b", "interrupted"]
    assert waits() == before
    assert waits(answer_of("b")) == [*before, ["ap_b"]]
    both = [*before, ["ap_b"], "running", ["ap_a"]]
    assert waits(answer_of("b"), answer_of("a")) == both
    end = m.RunEnd(outcome="complete", reason="stop")
    assert waits(answer_of("b"), answer_of("a"), end) == [*both, ["ap_a", "ap_b"], "completed"]
    end = m.RunEnd(outcome="cancelled", reason="cancelled")
    for rest in ([end], [answer_of("b"), end]):
        assert waits(*rest)[-2:] == [["ap_a", "ap_b"], "interrupted"]


def test_a_run_begins_at_the_checkpoint_that_it_names(here: Site) -> None:
    run = start(here, "fork", "scenario:text?rate=5000")
    settled(here, "fork", run)
    config = {"configurable": {"thread_id": "fork", "checkpoint_id": f"{run}.input"}}
    told = command(here, "fork", "run.start", input=None, config=config)
    settled(here, "fork", told["result"]["run_id"])
    state = here.client.get("/langgraph/threads/fork/state").json()
    assert [one["type"] for one in state["values"]["messages"]] == ["human", "ai"]
    marks = [one for one in events(here, "fork", since=0) if one["method"] == "checkpoints"]
    assert [mark["params"]["data"]["step"] for mark in marks] == [0, 1, 0, 1]


def test_nobody_reads_or_answers_in_a_thread_of_others() -> None:
    with site(api_keys=KEYS) as locked:
        message = {"type": "human", "content": "scenario:approval?rate=2000 the-secret"}
        path = "/langgraph/threads/private"
        body = {"id": 1, "method": "run.start", "params": {"input": {"messages": [message]}}}
        run = locked.client.post(f"{path}/commands", json=body, headers=AS_A).json()
        join = f"{path}/runs/{run['result']['run_id']}/join"
        told = locked.client.get(join, headers=AS_A).json()
        params = {"interrupt_id": told["__interrupt__"][0]["id"], "response": True}
        answer = {"id": 2, "method": "input.respond", "params": params}
        theirs = locked.client.post(f"{path}/commands", json=answer, headers=AS_B).json()
        assert theirs["error"] == "no_such_interrupt"
        wanted = {"channels": list(CHANNELS)}
        stream = f"{path}/stream/events?live=no"
        assert locked.client.post(stream, json=wanted, headers=AS_B).text.count("data: ") == 0
        assert "the-secret" in locked.client.post(stream, json=wanted, headers=AS_A).text


def test_subagents_begin_and_end_in_their_namespace() -> None:
    root = m.Agent(id="support", name="support")
    inner = m.Agent(id="call_1", name="task", parent="support")
    run = [
        m.RunStart(run="run-1", time=1),
        m.StepStart(step=1, kind="agent"),
        m.ToolCallStart(part=1, step=1, name="task", call_id="call_1", agent=root),
        m.ToolCallEnd(part=1, arguments={}),
        m.TextStart(part=2, step=1, agent=inner),
        m.TextDelta(part=2, text="inside"),
        m.TextEnd(part=2),
        m.ToolResult(call_id="call_1", name="task", content="done"),
    ]
    encoder = ThreadEncoder(history=[], created=1.8e9)
    made: list[Any] = []
    for number, event in enumerate(run, 1):
        event.seq = number
        made += encoder.take(event, f"{number}-{number:016x}")
    inside = [one["params"]["data"] for one in made if one["params"]["namespace"]]
    assert {one["params"]["namespace"][0] for one in made if one["params"]["namespace"]} == {
        "tools:call_1"
    }
    assert inside[0]["event"] == "started"
    assert inside[0]["cause"] == {"type": "toolCall", "tool_call_id": "call_1"}
    assert [one["event"] for one in inside] == [
        "started",
        "message-start",
        "content-block-start",
        "content-block-delta",
        "content-block-finish",
        "completed",
    ]
