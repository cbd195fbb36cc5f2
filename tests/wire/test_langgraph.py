"""LangGraph's wire beside its clients: threads, states, interrupts, what is refused."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from support.server import AS_A, AS_B, KEYS, Site, site
from tokenwire.errors import InputError
from tokenwire.events import model as m
from tokenwire.events.fold import fold
from tokenwire.wire.fields import ClientToolResult, Decision
from tokenwire.wire.langgraph.encoder import LangGraphEncoder
from tokenwire.wire.langgraph.request import answers_of
from tokenwire.wire.langgraph.state import interrupts_of


@pytest.fixture(scope="module")
def here() -> Iterator[Site]:
    with site() as found:
        yield found


def asked(text: str, **more: Any) -> dict[str, Any]:
    return {"input": {"messages": [{"type": "human", "content": text}]}, **more}


def values(here: Site, thread: str, text: str, **more: Any) -> Any:
    body = asked(text, **more)
    answer = here.client.post(f"/langgraph/threads/{thread}/runs/wait", json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()


# --- threads and states --------------------------------------------------------------------------


def test_a_thread_is_the_conversation_of_every_wire(here: Site) -> None:
    run = here.start("scenario:text?rate=2000", thread="shared")
    here.frames(f"/v1/runs/{run}/events")
    told = values(here, "shared", "scenario:text?rate=2000")
    assert [message["type"] for message in told["messages"]] == ["human", "ai", "human", "ai"]
    state = here.client.get("/langgraph/threads/shared/state").json()
    assert state["values"]["messages"] == told["messages"] or (
        [m["id"] for m in state["values"]["messages"]] == [m["id"] for m in told["messages"]]
    )
    assert (state["next"], state["tasks"]) == ([], [])
    turns = here.client.get("/v1/threads/shared/turns").json()["turns"]
    assert [turn["run"] for turn in turns] == [run, state["checkpoint"]["checkpoint_id"]]


def test_states_of_a_history_lead_to_the_root(here: Site) -> None:
    values(here, "states", "scenario:text?rate=2000")
    values(here, "states", "scenario:text?rate=2000")
    path = "/langgraph/threads/states"
    states = here.client.post(f"{path}/history", json={}).json()
    names = [state["checkpoint"]["checkpoint_id"] for state in states]
    assert [len(state["values"]["messages"]) for state in states] == [4, 3, 2, 1, 0]
    assert names[-1] == "root"
    parents = [state["parent_checkpoint"] for state in states]
    assert parents[-1] is None
    assert [parent["checkpoint_id"] for parent in parents[:-1]] == names[1:]
    page = here.client.post(f"{path}/history", json={"limit": 2, "before": names[1]}).json()
    assert page == states[2:4]
    for number, name in enumerate(names):
        assert here.client.get(f"{path}/state/{name}").json() == states[number]
    assert here.client.get(f"{path}/state/unknown").status_code == 404
    assert here.client.post(f"{path}/history", json={"before": "unknown"}).status_code == 404
    subgraph = {"checkpoint": {"checkpoint_ns": "tools:1"}}
    assert here.client.post(f"{path}/history", json=subgraph).json() == []


def test_threads_are_created_listed_and_erased(here: Site) -> None:
    made = here.client.post("/langgraph/threads", json={}).json()
    assert made["status"] == "idle"
    path = f"/langgraph/threads/{made['thread_id']}"
    assert here.client.get(path).json()["values"] is None
    values(here, made["thread_id"], "scenario:text?rate=2000")
    again = {"thread_id": made["thread_id"]}
    assert here.client.post("/langgraph/threads", json=again).status_code == 409
    again["if_exists"] = "do_nothing"
    assert here.client.post("/langgraph/threads", json=again).status_code == 200
    listed = here.client.post("/langgraph/threads/search", json={"limit": 100}).json()
    assert made["thread_id"] in [thread["thread_id"] for thread in listed]
    other = {"metadata": {"graph_id": "another"}}
    assert here.client.post("/langgraph/threads/search", json=other).json() == []
    assert here.client.get(path).json()["values"]["messages"]
    assert here.client.delete(path).status_code == 204
    assert here.client.get(path).json()["values"] is None


def test_a_run_is_cancelled_and_says_so(here: Site) -> None:
    path = "/langgraph/threads/stopped/runs"
    run = here.client.post(path, json=asked("scenario:slow")).json()
    assert run["status"] == "running"
    assert here.client.post(path, json=asked("x", multitask_strategy="reject")).status_code == 409
    one = f"{path}/{run['run_id']}"
    assert here.client.post(f"{one}/cancel?action=rollback").status_code == 400
    assert here.client.post(f"{one}/cancel?wait=1").status_code == 204
    assert here.client.get(one).json()["status"] == "interrupted"
    assert here.client.get(f"{one}/join").json()["__error__"]["error"] == "UserInterrupt"
    stream = here.client.get(f"{one}/stream").text
    assert "event: error\n" in stream
    assert "event: end\n" not in stream
    (task,) = here.client.get("/langgraph/threads/stopped/state").json()["tasks"]
    assert json.loads(task["error"])["error"] == "UserInterrupt"
    assert [r["run_id"] for r in here.client.get(path).json()] == [run["run_id"]]
    other = f"/langgraph/threads/elsewhere/runs/{run['run_id']}"
    assert here.client.get(other).status_code == 404


def test_modes_frames_and_the_place_to_reconnect(here: Site) -> None:
    body = asked("scenario:tools?rate=2000", stream_mode=["messages", "updates", "tools"])
    answer = here.client.post("/langgraph/threads/modes/runs/stream", json=body)
    kinds = {line[7:] for line in answer.text.split("\n") if line.startswith("event: ")}
    assert kinds == {"metadata", "messages/partial", "messages/complete", "updates", "tools", "end"}
    location = answer.headers["location"]
    assert answer.headers["content-location"] == location.partition("/stream")[0]
    ids = [line[4:] for line in answer.text.split("\n") if line.startswith("id: ")]
    middle = len(ids) // 2
    rest = here.client.get(f"/langgraph{location}", headers={"last-event-id": ids[middle]}).text
    assert [line[4:] for line in rest.split("\n") if line.startswith("id: ")] == ids[middle + 1 :]
    wrong = here.client.get(f"/langgraph{location}", headers={"last-event-id": "1-ffff"})
    assert wrong.status_code == 400
    leaving = here.client.get(f"/langgraph{location}&cancel_on_disconnect=1")
    assert leaving.json()["error"]["field"] == "cancel_on_disconnect"


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/threads", {"thread_id": "a\nb"}),
        ("/threads", {"if_exists": "replace"}),
        ("/threads", {"ttl": 5}),
        ("/threads", []),
        ("/threads/t/history", {"limit": 0}),
        ("/threads/t/history", {"metadata": {"a": 1}}),
        ("/threads/t/history", {"before": 5}),
        ("/threads/search", {"limit": "x"}),
        ("/threads/search", {"metadata": {"a": 1}}),
        ("/threads/search", {"status": "busy"}),
        ("/threads/t/state/checkpoint", {"checkpoint": 1}),
        ("/assistants/search", {"limit": -1}),
    ],
)
def test_bad_input_is_refused_by_its_name(here: Site, path: str, body: Any) -> None:
    answer = here.client.post(f"/langgraph{path}", json=body)
    assert answer.status_code == 400, answer.text
    assert answer.json()["detail"] == answer.json()["error"]["message"]


def test_assistants_are_models_and_agents(here: Site) -> None:
    (one,) = here.client.post("/langgraph/assistants/search", json={}).json()
    assert here.client.get(f"/langgraph/assistants/{one['assistant_id']}").json() == one
    assert here.client.get("/langgraph/assistants/other").status_code == 404


# --- interrupts ----------------------------------------------------------------------------------


def test_an_answer_decides_what_its_reader_was_shown_and_nothing_else(here: Site) -> None:
    path = "/langgraph/threads/asks/runs/wait"
    told = values(here, "asks", "scenario:approval?rate=2000")
    (interrupt,) = told["__interrupt__"]
    state = here.client.get("/langgraph/threads/asks/state").json()
    assert state["interrupts"] == [interrupt]
    assert here.client.get("/langgraph/threads/asks").json()["status"] == "interrupted"
    for value in ("perhaps", {}, {"decisions": []}, {"type": "ignore it"}, None, 1):
        answer = here.client.post(path, json={"command": {"resume": value}})
        assert answer.status_code == 400, value
    named = {"type": "edit", "edited_action": {"name": "other_tool", "args": {}}}
    answer = here.client.post(path, json={"command": {"resume": {"decisions": [named]}}})
    assert answer.json()["error"]["field"] == "command.resume.edited_action.name"
    edited = {"type": "edit", "edited_action": {"name": "delete_file", "args": {"path": "b.txt"}}}
    resume = {interrupt["id"]: {"decisions": [edited]}}
    done = here.client.post(path, json={"command": {"resume": resume}}).json()
    assert "__interrupt__" not in done
    assert '"deleted":"b.txt"' in done["messages"][2]["content"]
    late = here.client.post(path, json={"command": {"resume": resume}})
    assert late.status_code == 409


def test_what_is_said_instead_of_an_answer_supersedes_what_waits(here: Site) -> None:
    values(here, "instead", "scenario:approval?rate=2000")
    told = values(here, "instead", "scenario:text?rate=2000")
    assert "__interrupt__" not in told
    assert told["messages"][-1]["content"].startswith("# A simulated answer")
    second, first = here.client.get("/langgraph/threads/instead/runs").json()
    assert (second["status"], first["status"]) == ("success", "interrupted")


def test_nobody_answers_or_reads_in_a_thread_of_others() -> None:
    with site(api_keys=KEYS) as locked:
        body = asked("scenario:approval?rate=2000 the-secret")
        path = "/langgraph/threads/private/runs/wait"
        told = locked.client.post(path, json=body, headers=AS_A).json()
        name = told["__interrupt__"][0]["id"]
        resume = {"command": {"resume": {name: True}}}
        assert locked.client.post(path, json=resume, headers=AS_B).status_code == 409
        state = locked.client.get("/langgraph/threads/private/state", headers=AS_B).json()
        assert state["values"] == {"messages": []}
        assert locked.client.post(path, json=resume, headers=AS_A).status_code == 200


def waiting(*pending: str) -> list[Any]:
    events = [
        m.RunStart(run="run-1", time=1),
        m.StepStart(step=1),
        m.ToolCallStart(part=1, step=1, name="locate", call_id="call_1", executor="client"),
        m.ToolCallDelta(part=1, text='{"thing":"cat"}'),
        m.ToolCallEnd(part=1, arguments={"thing": "cat"}),
        m.StepEnd(step=1, status="complete"),
        m.ApprovalRequest(approval_id="ap_1", call_id="c2", name="send", arguments={"to": "x"}),
        m.ApprovalRequest(
            approval_id="ap_2", call_id="c3", name="interrupt", arguments={"value": {"ask": 1}}
        ),
        m.RunWait(reason="approval", pending=list(pending)),
    ]
    for number, event in enumerate(events, 1):
        event.seq = number
    return events


def test_each_kind_of_wait_has_its_interrupt_and_its_answer() -> None:
    state = fold(waiting("ap_1", "ap_2", "call_1"))
    state.waiting = ["ap_1", "ap_2", "call_1"]
    approval, graph, tool = interrupts_of(state, state.waiting)
    assert approval["value"]["action_requests"][0]["name"] == "send"
    assert graph == {"value": {"ask": 1}, "id": "ap_2"}
    call = {"id": "call_1", "name": "locate", "args": {"thing": "cat"}}
    assert tool == {"value": {"type": "tool", "tool_call": call}, "id": "call_1"}
    with pytest.raises(InputError, match="ap_1, ap_2, call_1"):
        answers_of(True, state)
    with pytest.raises(InputError, match="ap_2, call_1"):
        answers_of({"ap_1": True}, state)
    every = {"ap_1": {"type": "reject", "message": "no"}, "ap_2": [1], "call_1": {"call_1": "here"}}
    assert answers_of(every, state) == [
        Decision("ap_1", False, "no"),
        Decision("ap_2", True, arguments={"value": {"ask": 1}, "resume": [1]}),
        ClientToolResult("call_1", "here"),
    ]
    state.waiting = ["call_1"]
    assert answers_of("here", state) == [ClientToolResult("call_1", "here")]


def test_a_wait_ends_the_stream_unless_it_was_answered() -> None:
    events = waiting("ap_1")
    ended = LangGraphEncoder()
    text = b"".join(ended.encode(e, f"{e.seq}-{e.seq:016x}") for e in events).decode()
    assert ended.ended
    assert text.endswith("event: end\ndata: null\n\n")
    assert '"__interrupt__"' in text
    later = LangGraphEncoder(resolved_ids={"ap_1"})
    text = b"".join(later.encode(e, f"{e.seq}-{e.seq:016x}") for e in events).decode()
    assert not later.ended
    assert "__interrupt__" not in text


def test_subagents_speak_under_their_namespace() -> None:
    root = m.Agent(id="support", name="support")
    events = [
        m.RunStart(run="run-1", time=1),
        m.StepStart(step=1, kind="agent"),
        m.ToolCallStart(part=1, step=1, name="task", call_id="call_1", agent=root),
        m.ToolCallEnd(part=1, arguments={}),
        m.TextStart(part=2, step=1, agent=m.Agent(id="call_1", name="task", parent="support")),
        m.TextDelta(part=2, text="inside"),
        m.TextStart(part=3, step=1, agent=m.Agent(id="a:1/b\n|:2", name="b", parent="support")),
        m.TextDelta(part=3, text="of a graph"),
    ]
    for number, event in enumerate(events, 1):
        event.seq = number
    for subgraphs in (True, False):
        encoder = LangGraphEncoder(modes=("messages-tuple",), subgraphs=subgraphs)
        text = b"".join(encoder.encode(e, f"{e.seq}-{e.seq:016x}") for e in events).decode()
        names = [line for line in text.split("\n") if line.startswith("event: messages|")]
        inner = ["event: messages|tools:call_1", "event: messages|a:1|b__:2"]
        assert names == (inner if subgraphs else [])
        assert ("inside" in text) == subgraphs
