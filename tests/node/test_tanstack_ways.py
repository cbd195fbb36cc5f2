"""TanStack AI's other ways to the same route: lines, a WebSocket, and a conversation in pages."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import websockets

from support.node import need_node, run_node, serving

pytestmark = pytest.mark.node
WAYS = ["lines", "socket"]
KEYS = ["ann:0123456789abcdef-ann", "bob:0123456789abcdef-bob"]


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    need_node()
    with serving(heartbeat=0.05) as server:  # many pings: they must disturb nobody
        yield server.url


def client(url: str, case: str, prompt: str, **env: str) -> Any:
    told = run_node("tanstack.mjs", url, case, prompt, **env)
    assert told["warnings"] == []
    return told


def runs_of(url: str, thread: str) -> list[str]:
    return [r["state"] for r in httpx.get(f"{url}/v1/threads/{thread}").json()["runs"]]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("scenario", ["text", "reasoning", "tool", "length", "empty"])
def test_every_kind_of_event_is_taken(url: str, scenario: str, way: str) -> None:
    told = client(url, "plain", f"scenario:{scenario}", CONNECTION=way)
    assert told["errors"] == []
    assert told["chunks"][-1] == "RUN_FINISHED"
    same = client(url, "plain", f"scenario:{scenario}", CONNECTION="sse")
    assert told["text"] == same["text"]
    parts = [p for m in told["messages"] for p in m["parts"]]
    assert [p["type"] for p in parts] == [p["type"] for m in same["messages"] for p in m["parts"]]


@pytest.mark.parametrize("way", WAYS)
def test_a_cut_is_mended_without_a_second_run(url: str, way: str) -> None:
    told = client(url, "cut", "scenario:slow?rate=90", CONNECTION=way)
    assert told["errors"] == []
    assert told["text"] == "".join(f"{n} " for n in range(1, 91))
    assert runs_of(url, told["threadId"]) == ["complete"]
    if way == "lines":
        assert told["posts"] == 2
    else:
        first, second = told["sockets"]
        assert first.startswith("?runId=")
        assert second.startswith(first + "&offset=")


@pytest.mark.parametrize("way", WAYS)
def test_an_approval_goes_on_with_the_same_run(url: str, way: str) -> None:
    told = client(url, "approval", "scenario:approval", CONNECTION=way)
    assert told["errors"] == []
    assert runs_of(url, told["threadId"]) == ["complete"]
    assert len(told["sockets"]) == (1 if way == "socket" else 0), "one socket, two turns"


@pytest.mark.parametrize("way", WAYS)
def test_another_page_joins_the_run(url: str, way: str) -> None:
    told = client(url, "join", "scenario:slow?rate=12", CONNECTION=way)
    assert told["joined"] == told["text"]
    assert (told["seen"][0], told["seen"][-1]) == ("RUN_STARTED", "RUN_FINISHED")


def test_a_stop_over_the_socket_ends_the_run(url: str) -> None:
    told = client(url, "stop", "scenario:stall", CONNECTION="socket")
    assert told["errors"] == []
    assert runs_of(url, told["threadId"]) == ["cancelled"]


@pytest.mark.parametrize("way", ["sse", *WAYS])
def test_a_refused_turn_is_an_error_and_no_run(url: str, way: str) -> None:
    told = client(url, "refused", "x", CONNECTION=way)
    assert len(told["errors"]) == 1
    assert runs_of(url, told["threadId"]) == []


def test_a_conversation_in_pages_is_gone_on_with(url: str) -> None:
    told = client(url, "pages", "x", HISTORY="server")
    assert told["errors"] == []
    whole = told["whole"]
    assert [role for role, _ in whole] == ["user", "assistant"] * 3
    assert told["steps"] == [whole[4:], whole[2:], whole]
    # The page that knows two messages posts only what is new; the model is told everything.
    last = told["last"]
    assert last[:2] == whole[4:]
    assert last[2] == ["user", "Four"]
    assert "message number 4" in last[3][1]
    assert len(last) == 4, "asked again, the old answer is replaced"
    runs = httpx.get(f"{url}/v1/threads/{told['threadId']}").json()["runs"]
    assert len(runs) == 5
    for run in runs[:2]:  # the fourth turn, and the same asked again
        kept = httpx.get(f"{url}/v1/runs/{run['id']}").json()["input"]
        assert [m["role"] for m in kept] == ["user", "assistant"] * 3 + ["user"]


def ask(run: str, prompt: str = "scenario:text", thread: str = "ways") -> dict[str, Any]:
    messages = [{"id": f"u-{run}", "role": "user", "content": prompt}]
    return {"threadId": thread, "runId": run, "messages": messages}


def test_a_repeated_post_to_a_kept_conversation_is_the_same_run(url: str) -> None:
    first = ask("kept-1", thread="kept")
    headers = {"x-run-id": "kept-1"}
    address = f"{url}/ag-ui?history=server&stream=ndjson"
    whole = httpx.post(address, json=first, headers=headers, timeout=30).text
    ids = [json.loads(line)["id"] for line in whole.splitlines() if line]
    again = {**headers, "last-event-id": ids[3]}
    rest = httpx.post(address, json=first, headers=again, timeout=30).text
    assert rest.strip() == "\n".join(line for line in whole.splitlines() if line).split("\n", 4)[4]
    assert runs_of(url, "kept") == ["complete"]


def test_pages_of_a_conversation(url: str) -> None:
    def page(**query: Any) -> httpx.Response:
        return httpx.get(f"{url}/ag-ui", params={"threadId": "paged", **query})

    messages = [
        {"id": f"m{n}", "role": "user" if n % 2 else "assistant", "content": f"text {n}"}
        for n in range(1, 10)
    ]
    body = {"threadId": "paged", "runId": "paged-1", "messages": messages}
    httpx.post(f"{url}/ag-ui", json=body, headers={"x-run-id": "paged-1"}, timeout=30)
    whole = page().json()
    assert [m["id"] for m in whole["messages"]][:9] == [f"m{n}" for n in range(1, 10)]
    assert whole["page"] == {"truncated": False}
    newest = page(limit=4).json()
    assert newest["messages"] == whole["messages"][-4:]
    older = page(limit=4, before=newest["page"]["cursor"]).json()
    assert older["messages"] == whole["messages"][2:6]
    oldest = page(limit=4, before=older["page"]["cursor"]).json()
    assert oldest["messages"] == whole["messages"][:2]
    assert oldest["page"] == {"truncated": False}
    assert page(before=newest["page"]["cursor"]).json()["messages"] == whole["messages"][:-4]
    assert page(before="999").json()["messages"] == whole["messages"]
    for wrong in ({"limit": "0"}, {"limit": "-1"}, {"limit": "x"}, {"before": "1.5"}):
        assert page(**wrong).status_code == 400


def test_lines_are_bare_for_other_clients(url: str) -> None:
    bare = httpx.post(f"{url}/ag-ui?stream=ndjson", json=ask("bare-1"), timeout=30)
    assert bare.headers["content-type"] == "application/x-ndjson"
    events = [json.loads(line) for line in bare.text.splitlines() if line]
    assert (events[0]["type"], events[-1]["type"]) == ("RUN_STARTED", "RUN_FINISHED")
    accepted = httpx.post(
        f"{url}/ag-ui", json=ask("bare-2"), headers={"accept": "application/x-ndjson"}, timeout=30
    )
    assert accepted.headers["content-type"] == "application/x-ndjson"
    assert httpx.post(f"{url}/ag-ui?stream=xml", json=ask("bare-3")).status_code == 400


def over(url: str, query: str = "", **more: Any) -> Any:
    return websockets.connect(f"{url.replace('http', 'ws')}/ag-ui{query}", **more)


async def frames_of(socket: Any, most: int = 10_000) -> list[dict[str, Any]]:
    """The frames up to a terminal one, without pings."""
    found: list[dict[str, Any]] = []
    while len(found) < most:
        frame = json.loads(await asyncio.wait_for(socket.recv(), 60))
        if frame.get("type") == "ping":
            continue
        found.append(frame)
        if frame.get("chunk", frame)["type"] in ("RUN_FINISHED", "RUN_ERROR"):
            break
    return found


def test_the_rest_of_a_run_after_any_place(url: str) -> None:
    async def main() -> None:
        async with over(url, "?runId=ws-1") as socket:
            await socket.send(json.dumps(ask("ws-1", "scenario:tool")))
            whole = await frames_of(socket)
        ids = [frame["id"] for frame in whole]
        assert len(ids) == len(set(ids))
        for at in (0, 3, len(ids) // 2, len(ids) - 2):
            async with over(url, f"?runId=ws-1&offset={ids[at]}") as socket:
                assert await frames_of(socket) == whole[at + 1 :]
                with pytest.raises(websockets.ConnectionClosedOK) as closed:
                    await socket.recv()
                assert closed.value.rcvd is not None
                assert closed.value.rcvd.code == 1000
        async with over(url, "?runId=ws-1&offset=-1") as socket:
            assert await frames_of(socket) == whole

    asyncio.run(main())


def test_a_socket_that_reads_begins_nothing(url: str) -> None:
    async def main() -> None:
        async with over(url) as asking:
            await asking.send(json.dumps(ask("ws-stall", "scenario:stall", "stalled")))
            await frames_of(asking, 1)
            async with over(url, "?runId=ws-stall&offset=-1") as reading:
                await reading.send(json.dumps(ask("ws-never", thread="stalled")))
                assert (await frames_of(reading, 1))[0]["chunk"]["type"] == "RUN_STARTED"
            await asking.send(json.dumps({"type": "abort", "runId": "ws-stall"}))
            assert (await frames_of(asking))[-1]["chunk"]["outcome"] == {"type": "cancelled"}
        assert runs_of(url, "stalled") == ["cancelled"]

    asyncio.run(main())


def test_a_turn_may_be_as_long_as_a_body(url: str) -> None:
    async def main() -> None:
        async with over(url) as socket:
            await socket.send(json.dumps(ask("ws-long", "x" * 200_000)))
            assert (await frames_of(socket))[-1]["chunk"]["type"] == "RUN_FINISHED"

    asyncio.run(main())


def test_bad_frames_are_answered_and_the_socket_goes_on(url: str) -> None:
    deep = '{"runId":"r","threadId":"t","messages":' + "[" * 100_000 + "]" * 100_000 + "}"

    async def main() -> None:
        async with over(url) as socket:
            for bad in (
                "{",
                "[]",
                "{}",
                deep,
                json.dumps({"runId": "a\nb", "threadId": "t", "messages": []}),
                json.dumps({**ask("ws-bad"), "messages": [{"id": "1", "role": "robot"}]}),
                json.dumps({**ask("ws-bad"), "base_url": "http://10.0.0.1"}),
                json.dumps({"type": "abort", "runId": "ws-unknown"}),
                json.dumps({"type": "abort"}),
            ):
                await socket.send(bad)
                (frame,) = await frames_of(socket)
                assert frame["type"] == "RUN_ERROR", bad[:60]
                assert frame["code"] in ("bad_request", "unknown_run")
                assert frame["message"]
            await socket.send(json.dumps(ask("ws-good")))
            assert (await frames_of(socket))[-1]["chunk"]["type"] == "RUN_FINISHED"
        for query in ("?runId=ws-none&offset=-1", "?offset=-1", "?runId=ws-good&offset=xyz"):
            async with over(url, query) as socket:
                with pytest.raises(websockets.ConnectionClosedError) as closed:
                    await socket.recv()
                assert closed.value.rcvd is not None
                assert closed.value.rcvd.code == 1008
                assert closed.value.rcvd.reason

    asyncio.run(main())


def test_a_socket_is_its_principals_own() -> None:
    async def main(address: str) -> None:
        def as_(name: str) -> dict[str, str]:
            return {"authorization": f"Bearer 0123456789abcdef-{name}"}

        async with over(address, additional_headers=as_("ann")) as socket:
            await socket.send(json.dumps(ask("ann-run")))
            assert (await frames_of(socket))[-1]["chunk"]["type"] == "RUN_FINISHED"
        async with over(
            address, "?runId=ann-run&offset=-1", additional_headers=as_("bob")
        ) as socket:
            with pytest.raises(websockets.ConnectionClosedError):
                await socket.recv()
        with pytest.raises(websockets.InvalidStatus):
            await over(address, origin="https://evil.example", additional_headers=as_("ann"))
        async with over(address, additional_headers=as_("bob")) as socket:
            await socket.send(json.dumps({"type": "abort", "runId": "ann-run"}))
            assert (await frames_of(socket))[0]["code"] == "unknown_run"

    need_node()
    with serving(api_keys=KEYS) as server:
        asyncio.run(main(server.url))
