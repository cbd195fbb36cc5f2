"""Answers that a run has not taken, or ends without, on the wires of others and by links: none of
them is told as taken."""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from support.every_route import ag_ui_body
from support.server import Site, site
from tokenwire.relay import commands
from tokenwire.relay.commands import is_cancel
from tokenwire.relay.owned import OwnedRun

ASKS = "scenario:approval?rate=2000"


class Busy:
    """A run's process that takes nothing of its mailbox but cancels, and not even these if it
    ``is_deaf``."""

    def __init__(self) -> None:
        self.is_deaf = False
        #: An answer has come.
        self.answered = threading.Event()

    def passes(self, data: bytes) -> bool:
        if is_cancel(data):
            return not self.is_deaf
        self.answered.set()
        return False


@pytest.fixture
def here() -> Iterator[Site]:
    with site() as found:
        yield found


@pytest.fixture
def busy(monkeypatch: pytest.MonkeyPatch) -> Busy:
    found, deliver = Busy(), OwnedRun.deliver

    def delivered(self: OwnedRun, mailbox: list[tuple[int, bytes]]) -> bool:
        return deliver(self, [(number, data) for number, data in mailbox if found.passes(data)])

    monkeypatch.setattr(OwnedRun, "deliver", delivered)
    monkeypatch.setattr(commands, "_TAKEN_SECONDS", 0.0)
    return found


def approval_in(text: str) -> str:
    found = re.search(r"ap_[\w-]+", text)
    assert found is not None, text
    return found[0]


def cancel(here: Site, run: str) -> None:
    assert here.client.post(f"/v1/runs/{run}/cancel", json={}).status_code == 202


def ended(here: Site, run: str) -> None:
    end = time.monotonic() + 30
    while (state := here.client.get(f"/v1/runs/{run}").json()["state"]) != "cancelled":
        assert time.monotonic() < end, state
        time.sleep(0.01)


def only_run(here: Site, thread: str) -> str:
    (run,) = here.client.get(f"/v1/threads/{thread}").json()["runs"]
    return run["id"]


def refusal(answer: httpx.Response) -> tuple[int, str | None]:
    return answer.status_code, answer.json()["error"].get("reason")


# --- AI SDK --------------------------------------------------------------------------------------


def chat(here: Site, name: str) -> tuple[str, str]:
    question = {"id": "u1", "role": "user", "parts": [{"type": "text", "text": ASKS}]}
    answer = here.client.post("/api/chat?compat=6", json={"id": name, "messages": [question]})
    return answer.headers["tokenwire-run"], approval_in(answer.text)


def decide(here: Site, name: str, approval: str, approved: bool = True) -> httpx.Response:
    body = {"approvalId": approval, "approved": approved}
    return here.client.post(f"/api/chat/{name}/approval", json=body)


def test_a_decision_in_a_chat_says_whether_it_is_taken(here: Site) -> None:
    run, approval = chat(here, "taken")
    answer = decide(here, "taken", approval)
    assert (answer.status_code, answer.json()["taken"]) == (202, True)
    here.frames(f"/v1/runs/{run}/events")  # it has ended now
    assert refusal(decide(here, "taken", approval, False)) == (409, None)
    assert decide(here, "taken", "ap_unknown").status_code == 404
    assert decide(here, "never-was", approval).status_code == 404


def test_a_decision_in_a_chat_whose_run_ends_without_it_is_refused(here: Site, busy: Busy) -> None:
    run, approval = chat(here, "late")
    answer = decide(here, "late", approval)
    assert (answer.status_code, answer.json()["taken"]) == (202, False)
    cancel(here, run)
    ended(here, run)
    assert refusal(decide(here, "late", approval)) == (409, "run_ended")


# --- AG-UI ---------------------------------------------------------------------------------------


def asked(here: Site, thread: str) -> tuple[str, str]:
    body = {"threadId": thread, "runId": f"{thread}-1", **ag_ui_body(ASKS)}
    answer = here.client.post("/ag-ui", json=body)
    return answer.headers["tokenwire-run"], approval_in(answer.text)


def resumed(thread: str, approval: str) -> dict[str, Any]:
    resume = {"interruptId": approval, "status": "resolved", "payload": {"approved": True}}
    return {
        "threadId": thread,
        "runId": f"{thread}-2",
        **ag_ui_body(ASKS),
        "resume": [resume],
    }


def last_of(text: str) -> dict[str, Any]:
    return json.loads([line for line in text.splitlines() if line.startswith("data: ")][-1][6:])


def test_an_interrupt_whose_run_ends_without_its_answer_ends_cancelled(
    here: Site, busy: Busy
) -> None:
    run, approval = asked(here, "waits")
    with ThreadPoolExecutor(1) as pool:
        asking = pool.submit(here.client.post, "/ag-ui", json=resumed("waits", approval))
        assert busy.answered.wait(30)
        cancel(here, run)
        end = last_of(asking.result().text)
    assert (end["type"], end["outcome"]) == ("RUN_FINISHED", {"type": "cancelled"})
    assert only_run(here, "waits") == run


@pytest.mark.parametrize("end", ["cancelled", "complete"])
def test_an_answer_to_an_interrupt_of_an_ended_run_asks_nothing_again(here: Site, end: str) -> None:
    run, approval = asked(here, end)
    if end == "cancelled":
        cancel(here, run)
        ended(here, run)
    else:
        body = {"approved": False}
        here.client.post(f"/v1/runs/{run}/approvals/{approval}", json=body)
        here.frames(f"/v1/runs/{run}/events")
    for _ in range(2):  # the second request is a repetition
        told = here.client.post("/ag-ui", json=resumed(end, approval))
        assert told.status_code == 200
        outcome = last_of(told.text).get("outcome")
        assert outcome == {"type": "cancelled" if end == "cancelled" else "success"}
    assert only_run(here, end) == run
    assert here.runs_started == 1


def test_an_answer_to_an_interrupt_that_nobody_had_is_refused(here: Site) -> None:
    answer = here.client.post("/ag-ui", json=resumed("nobody", "ap_unknown"))
    assert refusal(answer) == (409, "nothing_waits")
    assert here.runs_started == 0


# --- A2A -----------------------------------------------------------------------------------------

VERSION = {"a2a-version": "1.0"}


def send(here: Site, message: dict[str, Any], how: str = "send") -> httpx.Response:
    body = {"message": {"role": "ROLE_USER", **message}}
    return here.client.post(f"/a2a/message:{how}", json=body, headers=VERSION)


def task_of(here: Site) -> tuple[str, str]:
    answer = send(here, {"messageId": "asks", "parts": [{"text": ASKS}]})
    return answer.json()["task"]["id"], approval_in(answer.text)


def yes(task: str, approval: str) -> dict[str, Any]:
    parts = [{"data": {"approvalId": approval, "approved": True}}]
    return {"messageId": "yes", "taskId": task, "parts": parts}


def check_unsupported(answer: httpx.Response) -> None:
    assert answer.status_code == 400, answer.text
    (info,) = answer.json()["error"]["details"]
    assert info["reason"] == "UNSUPPORTED_OPERATION"
    assert info["metadata"]["reason"] == "run_ended"


@pytest.mark.parametrize("how", ["send", "stream"])
def test_a_message_whose_task_ends_without_its_answer_is_an_error(
    here: Site, busy: Busy, how: str
) -> None:
    task, approval = task_of(here)
    with ThreadPoolExecutor(1) as pool:
        sending = pool.submit(send, here, yes(task, approval), how)
        assert busy.answered.wait(30)
        cancel(here, task)
        check_unsupported(sending.result())
    check_unsupported(send(here, yes(task, approval)))


def test_a_message_behind_a_cancel_is_an_error(here: Site, busy: Busy) -> None:
    task, approval = task_of(here)
    busy.is_deaf = True
    cancel(here, task)
    check_unsupported(send(here, yes(task, approval)))


# --- LangGraph -----------------------------------------------------------------------------------


def graph(here: Site, thread: str) -> tuple[str, str]:
    body = {"assistant_id": "demo", "input": {"messages": [{"role": "user", "content": ASKS}]}}
    answer = here.client.post(f"/langgraph/threads/{thread}/runs/wait", json=body)
    return only_run(here, thread), approval_in(answer.text)


def resume(here: Site, thread: str, approval: str, how: str = "wait") -> httpx.Response:
    body = {"assistant_id": "demo", "command": {"resume": {approval: True}}}
    return here.client.post(f"/langgraph/threads/{thread}/runs/{how}", json=body)


def respond(here: Site, thread: str, approval: str) -> dict[str, Any]:
    params = {"namespace": [], "interrupt_id": approval, "response": True}
    body = {"id": 1, "method": "input.respond", "params": params}
    return here.client.post(f"/langgraph/threads/{thread}/commands", json=body).json()


def test_a_graph_that_ends_without_the_answer_is_a_conflict(here: Site, busy: Busy) -> None:
    run, approval = graph(here, "waits")
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(resume, here, "waits", approval)
        assert busy.answered.wait(30)
        cancel(here, run)
        assert refusal(waiting.result()) == (409, "run_ended")


@pytest.mark.parametrize("how", ["wait", "stream"])
def test_an_answer_behind_a_cancel_is_a_conflict(here: Site, busy: Busy, how: str) -> None:
    run, approval = graph(here, "cancelled")
    busy.is_deaf = True
    cancel(here, run)
    assert refusal(resume(here, "cancelled", approval, how)) == (409, "run_ended")
    told = respond(here, "cancelled", approval)
    assert (told["type"], told["error"]) == ("error", "no_such_interrupt")


def test_a_command_says_that_its_answer_is_not_taken_yet(here: Site, busy: Busy) -> None:
    _, approval = graph(here, "later")
    told = respond(here, "later", approval)
    assert (told["type"], told["result"]) == ("success", {"taken": False})


def test_a_command_whose_answer_is_taken_says_no_more(here: Site) -> None:
    _, approval = graph(here, "now")
    told = respond(here, "now", approval)
    assert (told["type"], told["result"]) == ("success", {})


# --- links ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("is_busy", [True, False])
def test_a_link_says_whether_its_decision_is_taken(
    here: Site, is_busy: bool, request: pytest.FixtureRequest
) -> None:
    if is_busy:
        request.getfixturevalue("busy")
    run, approval = asked(here, "linked")
    made = here.client.post(f"/v1/runs/{run}/approvals/{approval}/links", json={}).json()
    used = here.client.post(made["url"], json={"decision": "approve"})
    assert used.status_code == 200
    assert ("has not taken it yet" in used.text) == is_busy
    assert ("was approved" in used.text) == (not is_busy)
    accept = {"accept": "application/json"}
    again = here.client.get(made["url"], headers=accept).json()
    assert again == {"state": "used", "decision": "approve", "taken": not is_busy}
    if is_busy:
        assert "has not taken it yet" in here.client.get(made["url"]).text
        cancel(here, run)
        ended(here, run)
        over = here.client.get(made["url"], headers=accept)
        assert (over.status_code, over.json()) == (410, {"state": "gone", "decision": None})
        assert "was approved" not in here.client.get(made["url"]).text
