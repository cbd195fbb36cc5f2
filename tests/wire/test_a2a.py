"""A2A without a network: cuts at every byte for the SDK's client, errors of both bindings."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from a2a.client import ClientConfig, ClientFactory
from a2a.client.errors import A2AClientError
from a2a.client.transports.http_helpers import parse_sse_stream
from a2a.types import a2a_pb2 as pb
from google.protobuf.json_format import ParseDict

from support.a2a_client import BINDINGS, Seen, in_loop, question
from support.server import AS_A, AS_B, KEYS, Site, site
from tokenwire.events.codec import from_fields
from tokenwire.wire.a2a.encoder import A2AEncoder
from tokenwire.wire.catalogue import EVERY_WAIT
from tokenwire.wire.place import split_cursor

CASES = Path(__file__).resolve().parents[2] / "conformance" / "wire"


def events_of(name: str) -> list[Any]:
    fields = json.loads((CASES / f"{name}.json").read_text())["events"]
    return [from_fields({**f, "seq": n}) for n, f in enumerate(fields, 1)]


def sent(events: list[Any], binding: str, last_id: str | None) -> bytes:
    """What the server sends to a reader that comes (back)."""
    place = split_cursor(last_id) if last_id else None
    encoder = A2AEncoder(
        is_rpc=binding == "JSONRPC", request_id="1", resolved_ids=EVERY_WAIT, place=place
    )
    after = int(place.after.partition("-")[0]) if place is not None else 0
    pieces = [b": ok\nretry: 1000\n\n"]
    for event in events[:after]:
        encoder.skip(event)
    pieces.append(encoder.reopen() if after else b"")
    pieces += [encoder.encode(e, f"{e.seq}-{e.seq:016x}") for e in events[after:]]
    return b"".join(pieces)


class Cut(httpx.AsyncByteStream):
    def __init__(self, data: bytes) -> None:
        self._data = data

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield self._data
        raise httpx.ReadError("cut")


@pytest.mark.parametrize("binding", BINDINGS)
@pytest.mark.parametrize("name", ["text", "reset", "approval"])
@in_loop
async def test_the_client_s_reader_cut_at_every_byte(binding: str, name: str) -> None:
    """By the SDK's own parser: what it has after any byte, and then from its cursor on, is the same
    task."""
    events = events_of(name)
    whole = sent(events, binding, None)

    async def frames(data: bytes) -> list[str]:
        return [text async for _, text in parse_sse_stream(httpx.Response(200, content=data))]

    def take(seen: Seen, texts: list[str]) -> Seen:
        for text in texts:
            value = json.loads(text)
            value = value["result"] if binding == "JSONRPC" else value
            seen.take(ParseDict(value, pb.StreamResponse()))
        return seen

    everything = await frames(whole)
    calm = take(Seen(), everything)
    assert calm.states[-1] in ("COMPLETED", "INPUT_REQUIRED")
    counts: set[int] = set()
    for cut in range(len(whole)):
        texts = await frames(whole[:cut])
        assert texts == everything[: len(texts)], cut
        counts.add(len(texts))
    assert counts == set(range(len(everything) + 1)) - {len(everything)}
    for count in counts - {0}:
        seen = take(Seen(), everything[:count])
        take(seen, await frames(sent(events, binding, seen.cursor)))
        assert (seen.text, seen.task.status) == (calm.text, calm.task.status), count


@pytest.mark.parametrize("binding", BINDINGS)
@in_loop
async def test_the_client_itself_cut_in_every_frame(binding: str) -> None:
    events = events_of("reset")
    whole = sent(events, binding, None)
    cut = len(whole)

    def answer(request: httpx.Request) -> httpx.Response:
        headers = {"content-type": "text/event-stream"}
        last_id = request.headers.get("last-event-id")
        if last_id is None:
            return httpx.Response(200, headers=headers, stream=Cut(whole[:cut]))
        return httpx.Response(200, headers=headers, content=sent(events, binding, last_id))

    card = pb.AgentCard(capabilities=pb.AgentCapabilities(streaming=True))
    url = "http://agent.example/a2a"
    interface = pb.AgentInterface(url=url, protocol_binding=binding, protocol_version="1.0")
    card.supported_interfaces.append(interface)
    async with httpx.AsyncClient(transport=httpx.MockTransport(answer)) as http:
        config = ClientConfig(httpx_client=http, supported_protocol_bindings=[binding])
        client = ClientFactory(config).create(card)
        ends = [m.end() for m in re.finditer(rb"\n\n", whole)]
        for cut in sorted({place for end in ends for place in (end - 30, end - 1, end)}):
            reader = Seen()
            with pytest.raises(A2AClientError):  # never the end of an answer
                await reader.read(client.send_message(question("hi")))
            if not reader.cursor:
                continue
            request = pb.SubscribeToTaskRequest(id=reader.task.id)
            await reader.read(client.subscribe(request, context=reader.resume))
            assert (reader.text, reader.states[-1]) == ("Good day", "COMPLETED"), cut


# --- errors --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def here() -> Iterator[Site]:
    with site() as found:
        yield found


def call(method: str, params: Any = None, **more: Any) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": "r-1", "method": method, "params": params or {}, **more}


def message(**more: Any) -> dict[str, Any]:
    return {"message": {"messageId": "m-bad", "parts": [{"text": "Hello"}], **more}}


WRONG: list[tuple[Any, int, str]] = [
    ([], -32600, "INVALID_REQUEST"),
    ([call("GetTask", {"id": "x"})], -32600, "INVALID_REQUEST"),
    ({}, -32600, "INVALID_REQUEST"),
    (call("GetTask", {"id": "x"}, jsonrpc="1.0"), -32600, "INVALID_REQUEST"),
    (call("GetTask", {"id": "x"}, id=True), -32600, "INVALID_REQUEST"),
    (call("message/send", message()), -32601, "METHOD_NOT_FOUND"),
    (call("GetTask", [1]), -32602, "INVALID_PARAMS"),
    (call("GetTask"), -32602, "INVALID_PARAMS"),
    (call("GetTask", {"id": "x", "historyLength": -1}), -32602, "INVALID_PARAMS"),
    (call("GetTask", {"id": "unknown-task-0123"}), -32001, "TASK_NOT_FOUND"),
    (call("GetTask", {"id": "a\nb"}), -32001, "TASK_NOT_FOUND"),
    (call("SubscribeToTask", {"id": "unknown-task-0123"}), -32001, "TASK_NOT_FOUND"),
    (call("ListTasks", {"pageToken": "nonsense"}), -32602, "INVALID_PARAMS"),
    (call("ListTasks", {"pageToken": "a/b"}), -32602, "INVALID_PARAMS"),
    (call("ListTasks", {"pageSize": 1000}), -32602, "INVALID_PARAMS"),
    (call("ListTasks", {"pageToken": "a/unknown-task-0123"}), -32602, "INVALID_PARAMS"),
    (
        call("SendMessage", {**message(), "configuration": {"taskPushNotificationConfig": {}}}),
        -32003,
        "PUSH_NOTIFICATION_NOT_SUPPORTED",
    ),
    (call("ListTasks", {"status": "completed"}), -32602, "INVALID_PARAMS"),
    (call("ListTasks", {"statusTimestampAfter": "soon"}), -32602, "INVALID_PARAMS"),
    (call("SendMessage"), -32602, "INVALID_PARAMS"),
    (call("SendMessage", {"message": {"parts": [{"text": "x"}]}}), -32602, "INVALID_PARAMS"),
    (call("SendMessage", message(parts=[])), -32602, "INVALID_PARAMS"),
    (call("SendMessage", message(parts=[{}])), -32602, "INVALID_PARAMS"),
    (call("SendMessage", message(parts=[{"text": "a", "url": "b"}])), -32602, "INVALID_PARAMS"),
    (call("SendMessage", message(parts=[{"raw": "%%%"}])), -32602, "INVALID_PARAMS"),
    (call("SendMessage", message(role="ROLE_AGENT")), -32602, "INVALID_PARAMS"),
    (call("SendMessage", message(contextId="a\nb")), -32602, "INVALID_PARAMS"),
    (call("SendMessage", message(messageId="x" * 300)), -32602, "INVALID_PARAMS"),
    (call("SendMessage", {**message(), "tenant": "../other"}), -32602, "INVALID_PARAMS"),
    (call("SendMessage", {**message(), "api_key": "x"}), -32602, "INVALID_PARAMS"),
    (call("SendMessage", message(taskId="unknown-task-0123")), -32001, "TASK_NOT_FOUND"),
]


def test_each_error_has_its_code_and_starts_nothing(here: Site) -> None:
    before = here.runs_started
    for body, code, reason in WRONG:
        answer = here.client.post("/a2a", json=body)
        value = answer.json()
        assert answer.status_code == 200, (body, answer.text)
        assert value["error"]["code"] == code, (body, value)
        assert value["error"]["data"][0]["reason"] == reason, (body, value)
        expected = body.get("id") if isinstance(body, dict) else None
        assert value["id"] == (None if expected is True else expected)
        assert value["jsonrpc"] == "2.0"
        assert "result" not in value
    kind = {"content-type": "application/json"}
    for content in (b"{", b"", b"\xff", b'{"a": NaN}'):
        broken = here.client.post("/a2a", content=content, headers=kind)
        assert (broken.status_code, broken.json()["error"]["code"]) == (200, -32700), content
        assert broken.json()["id"] is None
        rest = here.client.post("/a2a/message:send", content=content, headers=kind)
        assert (rest.status_code, rest.json()["error"]["status"]) == (400, "INVALID_ARGUMENT")
    assert here.runs_started == before


def test_a_notification_is_done_and_not_answered(here: Site) -> None:
    def notify(method: str, params: Any) -> None:
        body = {"jsonrpc": "2.0", "method": method, "params": params}
        answer = here.client.post("/a2a", json=body)
        assert (answer.status_code, answer.content) == (204, b"")

    slow = [{"text": "scenario:slow?rate=5"}]
    notify("SendMessage", message(messageId="n-1", contextId="notified", parts=slow))
    (task,) = here.client.get("/a2a/tasks?contextId=notified").json()["tasks"]
    assert task["status"]["state"] in ("TASK_STATE_SUBMITTED", "TASK_STATE_WORKING")
    notify("CancelTask", {"id": task["id"]})
    while here.client.get(f"/v1/runs/{task['id']}").json()["state"] != "cancelled":
        pass
    before = here.runs_started
    notify("GetTask", {"id": "unknown-task-0123"})
    notify("SendMessage", message(parts=[]))
    notify("unknown", {})
    assert here.runs_started == before
    answer = here.client.post("/a2a", json=call("GetTask", {"id": task["id"]}, id=None))
    assert answer.json()["id"] is None
    assert answer.json()["result"]["id"] == task["id"]


def test_pages_are_those_of_the_first_one(here: Site) -> None:
    """A context that gets a run while it is listed keeps its place."""

    def ask(context: str, number: int) -> str:
        asked = message(messageId=f"moves-{context}-{number}", contextId=context)
        return here.client.post("/a2a/message:send", json=asked).json()["task"]["id"]

    old = {ask(context, number) for context in ("m-a", "m-b", "m-c") for number in (1, 2)}
    listed: list[str] = []
    page: dict[str, Any] = {"nextPageToken": ""}
    for number in range(100):
        query = {"pageSize": 1, "pageToken": page["nextPageToken"]}
        page = here.client.get("/a2a/tasks", params=query).json()
        listed += [task["id"] for task in page["tasks"]]
        if number < 6:
            assert ask(("m-a", "m-b", "m-c", "m-d")[number % 4], 10 + number) not in listed
        if not page["nextPageToken"]:
            break
    assert len(listed) == len(set(listed))
    assert old <= set(listed)


def test_another_release_is_refused_on_both_bindings(here: Site) -> None:
    old = {"a2a-version": "0.3"}
    answer = here.client.post("/a2a", json=call("GetTask", {"id": "x"}), headers=old)
    assert answer.json()["error"]["code"] == -32009
    rest = here.client.get("/a2a/tasks/unknown", headers=old)
    assert (rest.status_code, rest.json()["error"]["status"]) == (400, "FAILED_PRECONDITION")
    assert rest.json()["error"]["details"][0]["reason"] == "VERSION_NOT_SUPPORTED"
    patch = here.client.get("/a2a/tasks/unknown", headers={"a2a-version": "1.0.7"})
    assert patch.status_code == 404


def test_rest_takes_the_media_type_of_a2a_and_keeps_errors_of_http(here: Site) -> None:
    body = json.dumps(message(messageId="typed"))
    kind = {"content-type": "application/a2a+json"}
    answer = here.client.post("/a2a/message:send", content=body, headers=kind)
    assert answer.headers["content-type"] == "application/a2a+json"
    assert answer.json()["task"]["status"]["state"] == "TASK_STATE_COMPLETED"
    form = {"content-type": "text/plain"}
    refused = here.client.post("/a2a/message:send", content=body, headers=form)
    assert refused.status_code == 415
    assert refused.json()["error"]["details"][0]["reason"] == "CONTENT_TYPE_NOT_SUPPORTED"


def test_files_and_data_reach_the_model(here: Site) -> None:
    parts = [
        {"text": "Look at this."},
        {"raw": "aGVsbG8", "mediaType": "text/plain", "filename": "a.txt"},
        {"url": "https://example.com/cat.png", "mediaType": "image/png"},
        {"data": {"a": 1}},
    ]
    answer = here.client.post("/a2a/message:send", json=message(messageId="files", parts=parts))
    task = answer.json()["task"]
    stored = here.client.get(f"/v1/runs/{task['id']}").json()["input"][0]["content"]
    assert [p["type"] for p in stored] == ["text", "file", "file", "text"]
    assert (stored[1]["data"], stored[1]["name"]) == ("aGVsbG8=", "a.txt")
    assert (stored[2]["url"], stored[3]["text"]) == ("https://example.com/cat.png", '{"a":1}')
    assert [set(p) & {"text", "raw", "url"} for p in task["history"][0]["parts"]] == [
        {"text"},
        {"raw"},
        {"url"},
        {"text"},
    ]


def test_keys_are_needed_but_for_the_card_which_names_nobody() -> None:
    with site(api_keys=KEYS, bad_attach_per_minute=1000) as locked:
        card = locked.client.get("/.well-known/agent-card.json")
        assert card.status_code == 200
        assert "demo" not in card.text.replace(locked.url, "")
        assert card.json()["securityRequirements"]
        for answer in (
            locked.client.post("/a2a", json=call("GetExtendedAgentCard")),
            locked.client.get("/a2a/extendedAgentCard"),
            locked.client.post("/a2a/message:send", json=message()),
        ):
            assert answer.status_code == 401, answer.text
        whole = locked.client.get("/a2a/extendedAgentCard", headers=AS_A).json()
        assert [skill["id"] for skill in whole["skills"]] == ["demo"]
        # One message id of two people is two tasks, and neither sees the other's.
        tasks = [
            locked.client.post("/a2a/message:send", json=message(), headers=who).json()["task"][
                "id"
            ]
            for who in (AS_A, AS_B)
        ]
        assert tasks[0] != tasks[1]
        foreign = locked.client.get(f"/a2a/tasks/{tasks[0]}", headers=AS_B)
        unknown = locked.client.get("/a2a/tasks/unknown-task-0123", headers=AS_B)
        assert foreign.status_code == unknown.status_code == 404
        assert foreign.json()["error"]["message"] == unknown.json()["error"]["message"]
        mine = locked.client.get("/a2a/tasks", headers=AS_B).json()
        assert [task["id"] for task in mine["tasks"]] == [tasks[1]]


def test_an_answer_that_decides_nothing_is_an_error(here: Site) -> None:
    """And one under the id of another answer; the question stays open."""
    first = message(messageId="ask", parts=[{"text": "scenario:approval"}])
    task = here.client.post("/a2a/message:send", json=first).json()["task"]
    asked = next(p["data"] for p in task["status"]["message"]["parts"] if "data" in p)
    approval = asked["approvals"][0]["approvalId"]
    run = here.client.get(f"/v1/runs/{task['id']}/events?live=no").text
    server_call = re.search(r'"call_id":"([^"]+)"', run)
    assert server_call is not None

    def answer(name: str, *parts: Any) -> httpx.Response:
        body = message(messageId=name, taskId=task["id"], parts=list(parts))
        return here.client.post("/a2a/message:send", json=body)

    for number, value in enumerate(
        (
            [],
            [[]],
            {"callId": server_call[1], "content": 1},
            {"callId": approval, "content": 1},
            {"approvalId": server_call[1], "approved": True},
            [{"approvalId": approval, "approved": True}, {}],
        )
    ):
        wrong = answer(f"wrong-{number}", {"data": value})
        assert wrong.status_code == 400, (value, wrong.text)
        assert wrong.json()["error"]["details"][0]["reason"] == "INVALID_PARAMS"
        assert here.client.get(f"/v1/runs/{task['id']}").json()["state"] == "waiting"
    for _ in range(2):
        denied = answer("one", {"text": "deny"})
        assert denied.json()["task"]["status"]["state"] == "TASK_STATE_COMPLETED"
    other = answer("one", {"text": "approve"})
    assert other.status_code == 400
    assert other.json()["error"]["details"][0]["metadata"]["field"] == "message.messageId"


def test_a_page_after_a_task_that_was_erased_is_no_unknown_task(here: Site) -> None:
    tasks = [
        here.client.post(
            "/a2a/message:send", json=message(messageId=f"page-{n}", contextId="pages")
        ).json()["task"]["id"]
        for n in range(3)
    ]
    page = here.client.get("/a2a/tasks?contextId=pages&pageSize=1").json()
    assert [task["id"] for task in page["tasks"]] == [tasks[2]]
    assert here.client.delete(f"/v1/runs/{tasks[2]}").status_code == 204
    query = {"contextId": "pages", "pageToken": page["nextPageToken"]}
    late = here.client.get("/a2a/tasks", params=query)
    assert late.status_code == 400
    assert late.json()["error"]["details"][0]["metadata"]["field"] == "pageToken"
    foreign = {"contextId": "pages", "pageToken": "pages/unknown-task-0123"}
    assert here.client.get("/a2a/tasks", params=foreign).status_code == 400


def test_a_task_that_is_polled_says_how_it_ended(here: Site) -> None:
    """The same as the last event of its stream."""
    for scenario, error in (("length", "length"), ("filter", "content_filter"), ("text", None)):
        asked = message(messageId=f"ends-{scenario}", parts=[{"text": f"scenario:{scenario}"}])
        task = here.client.post("/a2a/message:send", json=asked).json()["task"]
        stream = here.client.post("/a2a/message:stream", json=asked).text
        last = json.loads(stream.rpartition("data: ")[2])
        facts = task["metadata"]["tokenwire"]
        assert facts.get("error") == error
        assert facts["usage"]["output_tokens"] > 0
        assert facts == last["statusUpdate"]["metadata"]["tokenwire"]
        assert here.client.get(f"/a2a/tasks/{task['id']}").json()["metadata"]["tokenwire"] == facts
