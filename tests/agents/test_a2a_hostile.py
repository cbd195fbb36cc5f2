"""Remote A2A agents that are broken or hostile: nothing of theirs becomes a success."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response

import tokenwire
from support.a2a_peer import Script, scripted_peer, sse
from support.agents import asked, events_of, worker
from tokenwire.agents.a2a.agent import remote_agent
from tokenwire.agents.a2a.reading import Reading
from tokenwire.agents.load import load_agent
from tokenwire.errors import ConfigError, ProtocolError
from tokenwire.events import model as m
from tokenwire.events.fold import Fold, fold
from tokenwire.run.call.deadlines import Deadlines

SHORT = Deadlines(connect=2, first_event=2, idle=2, keep_alive=2, total=3)


def task(state: str = "WORKING", *texts: str, **more: Any) -> dict[str, Any]:
    value: dict[str, Any] = {"id": "t", "contextId": "c", "status": status(state), **more}
    if texts:
        value["artifacts"] = [{"artifactId": "a", "parts": [{"text": t} for t in texts]}]
    return value


def status(state: str, said: str = "") -> dict[str, Any]:
    value: dict[str, Any] = {"state": f"TASK_STATE_{state}"}
    if said:
        parts = [{"text": said}]
        value["message"] = {"messageId": f"m-{said}", "role": "ROLE_AGENT", "parts": parts}
    return value


def now(state: str, said: str = "", **more: Any) -> dict[str, Any]:
    return {"statusUpdate": {"taskId": "t", "status": status(state, said), **more}}


def odd(parts: Any) -> dict[str, Any]:
    message = {"messageId": "m", "role": "ROLE_AGENT", "parts": parts}
    return {"statusUpdate": {"taskId": "t", "status": {**status("WORKING"), "message": message}}}


def piece(text: str, *, append: bool = False, last: bool = False, of: str = "t") -> dict[str, Any]:
    update: dict[str, Any] = {"taskId": of, "artifact": {"artifactId": "a"}}
    update["artifact"]["parts"] = [{"text": text}]
    return {"artifactUpdate": {**update, "append": append, "lastChunk": last}}


def streams(*results: Any, then: Any = None) -> Script:
    """The message gets this stream; every other operation ``then``, else an error."""

    def script(method: str, params: dict[str, Any]) -> Any:
        if method == "SendStreamingMessage":
            return lambda rpc_id: sse(*results, rpc_id=rpc_id)
        value = then(method, params) if callable(then) else then
        return value if value is not None else rpc_error(-32001)

    return script


def rpc_error(code: int, message: str = "no") -> Any:
    def answer(rpc_id: Any) -> Response:
        error = {"code": code, "message": message}
        return JSONResponse({"jsonrpc": "2.0", "id": rpc_id, "error": error})

    return answer


async def run_of(script: Script, **card: Any) -> tuple[Fold, list[Any], str]:
    """The run, its events, and the message of its error."""
    with scripted_peer(script, **card) as door:
        agent = remote_agent(f"a2a:{door.url}", "peer", env={})
        events: list[Any] = []
        async with tokenwire.stream("Hello", model=agent, deadlines=SHORT) as run:
            async for event in run:
                events.append(event)
        said = next((e.message for e in events if isinstance(e, m.Error)), "")
        return fold(events), events, said.replace(door.url.removeprefix("http://"), "HOST")


ENDS = streams({"task": task()}, piece("Hello"), now("COMPLETED"))


@pytest.mark.parametrize(
    ("card", "said"),
    [
        ({"supportedInterfaces": 7}, "not one of A2A 1.0"),
        ({"supportedInterfaces": None, "protocolVersion": "0.3.0"}, "release 0.3.0"),
        ({"supportedInterfaces": []}, "no interface of A2A 1.x"),
        ({"supportedInterfaces": [7, {"url": 8, "protocolBinding": "JSONRPC"}]}, "no interface"),
        (
            {
                "supportedInterfaces": [
                    {"url": "http://elsewhere/rpc", "protocolBinding": "JSONRPC"}
                ]
            },
            "names the address 'http://elsewhere/rpc', which is not at this host",
        ),
        (
            {"capabilities": {"extensions": [{"uri": "urn:x", "required": True}]}},
            "requires the extension 'urn:x'",
        ),
    ],
)
async def test_a_card_that_cannot_be_used(card: dict[str, Any], said: str) -> None:
    state, _, message = await run_of(ENDS, **card)
    assert (state.outcome, state.text) == ("error", "")
    assert said in message


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (HTMLResponse("<html>sign in</html>"), "HOST sent HTML where JSON was expected"),
        (sse("data: {]\n\n"), "no valid JSON"),
        (sse('data: {"jsonrpc":"2.0","id":"1"}\n\n'), "without a result"),
        (sse('data: "text"\n\n'), "did not answer with JSON-RPC 2.0"),
        (JSONResponse({"task": task()}), "did not answer with JSON-RPC 2.0"),
        (sse({"task": task()}, rpc_id="other"), "the response to another request"),
        (rpc_error(-32602, "bad parts"), "HOST refused the request: bad parts"),
        (Response(status_code=401), "did not accept the credentials"),
        (Response(status_code=418), "HOST failed (HTTP 418)"),
        (RedirectResponse("http://elsewhere/"), "redirects to another address"),
        (sse("data: " + "x" * (17 << 20) + "\n\n"), "an event that is too long"),
        (lambda i: sse({"other": 1}, rpc_id=i), "a response that is none of A2A's"),
        (lambda i: sse({"task": {"id": 7}}, rpc_id=i), "no valid 'id'"),
        (lambda i: sse({"task": {"id": "t"}}, rpc_id=i), "without a status"),
        (lambda i: sse({"task": task("ODD")}, rpc_id=i), "the unknown state 'ODD'"),
        (lambda i: sse({"task": task()}, piece("x", of="u"), rpc_id=i), "of another task"),
        (lambda i: sse({"task": task()}, {"message": {"parts": []}}, rpc_id=i), "in place of"),
        (
            lambda i: sse({"task": task()}, {"artifactUpdate": {"taskId": "t"}}, rpc_id=i),
            "an artifact without its id",
        ),
        (
            lambda i: sse({"task": task(artifacts=[{"artifactId": "a", "parts": 7}])}, rpc_id=i),
            "'parts' that are no list",
        ),
    ],
)
async def test_an_answer_that_is_not_the_protocols(answer: Any, said: str) -> None:
    def script(method: str, params: dict[str, Any]) -> Any:
        return answer if method == "SendStreamingMessage" else rpc_error(-32001)

    state, _, message = await run_of(script)
    assert (state.outcome, state.text) == ("error", "")
    assert said in message


async def test_a_stream_without_a_response_leaves_the_message_in_doubt() -> None:
    empty = Response("{]", media_type="text/event-stream")
    state, _, _ = await run_of(
        lambda method, params: empty if method == "SendStreamingMessage" else rpc_error(-32601)
    )
    assert (state.outcome, state.end_reason) == ("interrupted", "message_in_doubt")


@pytest.mark.parametrize(
    ("results", "text"),
    [
        # A state that goes backwards, and what comes after the end.
        ([task("WORKING"), now("SUBMITTED"), piece("Hi"), now("COMPLETED"), piece("!")], "Hi"),
        # A chunk after the last one; one before the first: no word is lost, and the task decides.
        ([task(), piece("H", last=True), piece("i", append=True), now("COMPLETED")], "Hi"),
        ([task(), piece("Hi", append=True), now("COMPLETED")], "Hi"),
        # Artifacts that are replaced: by more, by less, by something else, and by nothing.
        ([task(), piece("H"), piece("Hi"), now("COMPLETED")], "Hi"),
        ([task(), piece("Hi there"), piece("Hi"), now("COMPLETED")], "Hi"),
        ([task(), piece("Wrong"), piece("Hi"), now("COMPLETED")], "Hi"),
        ([task(), piece("Wrong"), piece(""), piece("Hi"), now("COMPLETED")], "Hi"),
        # The last words repeat the artifact.
        ([task(), piece("Hi"), now("COMPLETED", "Hi")], "Hi"),
        # A message of a status that is none.
        *(
            ([task(), odd(value), piece("Hi"), now("COMPLETED")], "Hi")
            for value in (5, "x", {"text": "x"}, [5], [{"text": 5}], [[]], None)
        ),
    ],
)
async def test_odd_orders_lose_and_repeat_nothing(results: list[Any], text: str) -> None:
    results[0] = {"task": results[0]}
    script = streams(*results, then=task("COMPLETED", text))
    state, events, _ = await run_of(script)
    assert (state.text, state.outcome) == (text, "complete")
    assert fold(events).text == text


@pytest.mark.parametrize(
    ("then", "text", "outcome"),
    [
        (task("COMPLETED", "Hello ", "world"), "Hello world", "complete"),
        (task("COMPLETED", "Something else"), "Something else", "complete"),
        (task("COMPLETED"), "Hello", "error"),  # it keeps no artifacts: words may be missing
        (task("FAILED", "Hello "), "Hello ", "error"),
        (None, "Hello", "error"),  # it does not know the task any more
    ],
)
async def test_after_a_cut_the_whole_task_decides(then: Any, text: str, outcome: str) -> None:
    state, events, message = await run_of(
        streams({"task": task()}, piece("Hello"), then=lambda method, params: then)
    )
    assert (state.text.strip(), state.outcome) == (text.strip(), outcome)
    if then == task("COMPLETED"):
        assert "words may be missing" in message
        assert [e.code for e in events if isinstance(e, m.Error)] == ["truncated"]


async def test_a_stream_without_an_end_ends_with_the_run(tmp_path: Path) -> None:
    def script(method: str, params: dict[str, Any]) -> Any:
        if method == "CancelTask":
            cancelled.append(params)
            return task("CANCELED")
        if method == "ListTasks":
            return {"tasks": [task(contextId=params["contextId"])]}
        return lambda rpc_id: sse({"task": task()}, *endless, rpc_id=rpc_id, pause=0.02)

    cancelled: list[Any] = []
    endless = [now("WORKING")] * 10_000
    with scripted_peer(script) as door:
        agent = remote_agent(f"a2a:{door.url}", "peer", env={})
        async with worker(tmp_path, agent, deadlines=Deadlines(total=3)) as runs:
            info = await runs.start(asked(), model="peer")
            events = await events_of(runs, info.id)
            while not cancelled:
                await asyncio.sleep(0.01)
    assert fold(events).outcome == "error"
    assert [e.which for e in events if isinstance(e, m.Error)] == ["total"]
    assert cancelled == [{"id": "t"}]


@pytest.mark.parametrize(
    "facts", [{"error": "length", "finishReason": "length"}, {"error": "overloaded"}, {"error": 7}]
)
async def test_why_a_tokenwire_failed(facts: dict[str, Any]) -> None:
    ending = now("FAILED", "It was cut.", metadata={"tokenwire": facts})
    state, events, message = await run_of(streams({"task": task()}, piece("Half"), ending))
    codes = [e.code for e in events if isinstance(e, m.Error)]
    if facts["error"] == "length":
        assert (state.outcome, state.end_reason, codes) == ("incomplete", "length", [])
    else:
        code = "overloaded" if facts["error"] == "overloaded" else "remote_failed"
        assert (state.outcome, codes, message) == ("error", [code], "It was cut.")


async def test_a_remote_cancel_is_no_success() -> None:
    state, events, message = await run_of(streams({"task": task()}, now("CANCELED", "by ops")))
    assert (state.outcome, message) == ("error", "the remote agent's task was cancelled: by ops")
    assert [e.code for e in events if isinstance(e, m.Error)] == ["remote_canceled"]


@pytest.mark.parametrize(
    "place",
    [
        "a2a:ftp://host/",
        "a2a:https://user:secret@host/",
        "a2a:https:///path",
        "a2a:https://host/?q=1",
        "a2a:https://host:x/",
        "x=a2a:https://ho st/",
    ],
)
def test_an_address_that_cannot_be_one(place: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_agent(place)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("place", "name"),
    [
        ("a2a:https://agents.example.com/a", "agents.example.com"),
        ("a2a:https://host:8443#support", "support"),
        ("desk=a2a:https://host/a=b", "desk"),
    ],
)
def test_the_name_of_a_remote_agent(place: str, name: str) -> None:
    assert load_agent(place).name == name


@pytest.mark.parametrize(
    "env",
    [
        {"A2A_PEER_HEADERS": "x: y"},
        {"A2A_PEER_HEADERS": '{"host": "elsewhere"}'},
        {"A2A_PEER_HEADERS": '{"x-key": "a\\r\\nb"}'},
        {"A2A_PEER_API_KEY": "a\nb"},
    ],
)
def test_credentials_that_are_no_header(env: dict[str, str]) -> None:
    with pytest.raises(ConfigError):
        remote_agent("a2a:https://host", "peer", env=env)


def test_pieces_cost_what_they_are_long() -> None:
    """Also where the agent's view is behind what readers have."""
    reading = Reading([])
    reading.take({"task": task()})
    for _ in range(20_000):
        reading.take(piece("word ", append=True))
    assert reading.take(piece("end", append=True))
    with pytest.raises(ProtocolError):
        reading.take({"message": {}})
