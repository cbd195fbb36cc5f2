"""Runs that a worker outside of the server writes, by plain HTTP as another language would."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import httpx
import pytest

from support.free_ports import free_port
from support.redis import redis_server
from support.server import AS_A, AS_B, KEY_A, KEYS, Site, site, status_of, text_of
from tokenwire.client import Patience, produce
from tokenwire.client.produce import RemoteRun
from tokenwire.errors import ConflictError
from tokenwire.server.edge.connections import Connections

MANY = {
    "api_keys": KEYS,
    "runs_per_principal": 1000,
    "starts_per_minute": 10_000,
    "starts_burst": 1000,
    "bad_attach_per_minute": 10_000,
    "readers_per_principal": 100,
    "durable_streams": "read",
    "model": ["demo"],
}
TEXT: list[dict[str, Any]] = [
    {"type": "step-start", "step": 1},
    {"type": "text-start", "part": 0},
    {"type": "text-delta", "part": 0, "text": "Hello "},
    {"type": "text-delta", "part": 0, "text": "world"},
]
END: list[dict[str, Any]] = [
    {"type": "text-end", "part": 0, "status": "complete"},
    {"type": "step-end", "step": 1, "status": "complete", "terminal_seen": True},
    {"type": "run-end", "outcome": "complete"},
]


CALL: list[dict[str, Any]] = [
    {"type": "step-start", "step": 1},
    {"type": "tool-call-start", "part": 0, "call_id": "c1", "name": "send"},
    {"type": "tool-call-delta", "part": 0, "text": "{}"},
    {"type": "tool-call-end", "part": 0, "status": "complete"},
    {"type": "step-end", "step": 1, "status": "complete"},
    {"type": "approval-request", "approval_id": "a1", "call_id": "c1", "name": "send"},
    {"type": "run-wait", "reason": "approval", "pending": ["a1"]},
]


@pytest.fixture(scope="module", params=["memory", "sqlite", "redis"])
def here(request: pytest.FixtureRequest, tmp_path_factory: Any) -> Iterator[Site]:
    if request.param == "memory":
        with site(**MANY) as found:
            yield found
    elif request.param == "sqlite":
        path = tmp_path_factory.mktemp("producers") / "runs.db"
        with site(store=f"sqlite:///{path}", **MANY) as found:
            yield found
    else:
        with redis_server() as redis, site(store=redis.url, **MANY) as found:
            yield found


@pytest.fixture(scope="module")
def sqlite_site(tmp_path_factory: Any) -> Iterator[Site]:
    path = tmp_path_factory.mktemp("produced") / "runs.db"
    with site(store=f"sqlite:///{path}", **MANY) as found:
        yield found


class Remote:
    """A producer of another language."""

    def __init__(self, here: Site, headers: dict[str, str] = AS_A, **body: Any) -> None:
        self.here, self.headers = here, headers
        made = here.client.post("/v1/producers", json={"prompt": "hi", **body}, headers=headers)
        assert made.status_code == 201, made.text
        self.run, self.epoch, self.next = (made.json()[name] for name in ("run", "epoch", "next"))

    def post(self, what: str, **body: Any) -> httpx.Response:
        path = f"/v1/producers/{self.run}/{what}"
        return self.here.client.post(path, json=body, headers=self.headers)

    def append(self, events: list[dict[str, Any]], **more: Any) -> httpx.Response:
        body = {"epoch": self.epoch, "first": self.next, "events": events, **more}
        answer = self.post("events", **body)
        if answer.status_code == 200:
            self.next = answer.json()["next"]
        return answer

    def finish(self, **body: Any) -> httpx.Response:
        return self.post("finish", **{"epoch": self.epoch, "first": self.next, **body})

    def get(self, path: str = "") -> dict[str, Any]:
        answer = self.here.client.get(f"/v1/producers/{self.run}{path}", headers=self.headers)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def events(self, after: str = "") -> list[dict[str, Any]]:
        more = {"last-event-id": after} if after else {}
        path = f"/v1/runs/{self.run}/events"
        return [json.loads(f.data) for f in self.here.frames(path, headers=self.headers | more)]

    def until_ended(self) -> dict[str, Any]:
        return self.events()[-1]


def refused(answer: httpx.Response, reason: str) -> dict[str, Any]:
    assert answer.status_code == 409, answer.text
    error = answer.json()["error"]
    assert error["reason"] == reason, error
    return error


def test_a_run_is_written_and_read_on_every_wire(here: Site) -> None:
    remote = Remote(here, thread="remote-1", model="mine", metadata={"job": 7})
    assert remote.next == 2
    assert remote.append(TEXT).status_code == 200
    assert remote.append(END).json()["state"] == "complete"
    events = remote.events()
    assert [e["seq"] for e in events] == list(range(1, 9))
    assert (events[0]["type"], events[0]["model"]) == ("run-start", "mine")
    assert events[-1]["outcome"] == "complete"
    frames = here.frames(f"/v1/runs/{remote.run}/events", headers=AS_A)
    assert text_of(frames) == "Hello world"
    later = remote.events(after=frames[3].id or "")
    assert later == events[4:]
    snapshot = here.client.get(f"/v1/runs/{remote.run}", headers=AS_A).json()
    assert (snapshot["state"], snapshot["metadata"]) == ("complete", {"job": 7})
    for wire in ("openai-chat", "openai-responses", "anthropic", "ag-ui", "tanstack", "ui"):
        answer = here.client.get(f"/v1/runs/{remote.run}/wires/{wire}", headers=AS_A)
        assert answer.status_code == 200, (wire, answer.text)
        assert "world" in answer.text, wire
    assert here.client.get(f"/v1/runs/{remote.run}", headers=AS_B).status_code == 404
    foreign = here.client.get(f"/v1/producers/{remote.run}", headers=AS_B)
    assert foreign.status_code == 404


def test_the_same_append_again_changes_nothing(here: Site) -> None:
    remote = Remote(here)
    first = remote.next
    assert remote.append(TEXT).json()["duplicate"] is False
    again = remote.append(TEXT, first=first)
    assert again.json()["duplicate"] is True
    assert remote.append(TEXT[:2], first=first).json()["duplicate"] is True
    other = [*TEXT[:3], {**TEXT[3], "text": "other"}]
    assert refused(remote.append(other, first=first), "conflict")["next"] == 6
    # One that overlaps what is there writes the rest only.
    assert remote.append([TEXT[3], END[0]], first=5).json()["next"] == 7
    assert refused(remote.append(END[1:], first=9), "gap")["next"] == 7
    fenced = refused(remote.append(END[1:], epoch=5), "fenced")
    assert fenced["epoch"] == 1
    assert remote.append(END[1:]).status_code == 200
    assert remote.append(END[1:], first=7).json()["duplicate"] is True
    closed = remote.append([{"type": "data", "name": "late"}])
    refused(closed, "closed")
    assert len(remote.events()) == 8


def test_appends_at_once_are_written_once(here: Site) -> None:
    remote = Remote(here)
    answers: list[httpx.Response] = []

    def send() -> None:
        body = {"epoch": 1, "first": 2, "events": TEXT}
        answers.append(remote.post("events", **body))

    threads = [threading.Thread(target=send) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [a.status_code for a in answers] == [200] * 6
    assert sum(not a.json()["duplicate"] for a in answers) == 1
    assert remote.get()["next"] == 6
    assert remote.finish(first=6).status_code == 200
    assert text_of(here.frames(f"/v1/runs/{remote.run}/events", headers=AS_A)) == "Hello world"


BAD: list[tuple[list[Any], str]] = [
    ([{"type": "no-such"}], "events[0]: unknown type"),
    ([TEXT[0], {"type": "text-delta", "part": 0, "text": "x"}], "events[1]:"),
    ([{"type": "run-end", "outcome": "complete"}] * 2, "events[1]: nothing may follow"),
    ([{"type": "run-start", "run": "x"}], "events[0]: only the server"),
    ([{"type": "run-claim", "epoch": 9}], "events[0]: only the server"),
    ([{"type": "checkpoint", "upto": 1, "state": {}}], "events[0]: only the server"),
    ([{"type": "heartbeat"}], "events[0]: only the server"),
    ([{"type": "reconnect"}], "events[0]: only the server"),
    ([{"type": "control", "command": "cancel"}], "events[0]: no such 'control'"),
    (
        [{"type": "approval-answer", "approval_id": "a", "call_id": "c", "approved": True}],
        "events[0]: no such 'approval-answer'",
    ),
    ([TEXT[0], TEXT[1], {"type": "run-end", "outcome": "complete"}], "events[2]:"),
    ([{"type": "run-end", "outcome": "splendid"}], "events[0]:"),
    ([{"type": "text-delta"}], "events[0]:"),
    ([{"no": "type"}], "events[0]:"),
    ([{"type": 3}], "events[0]:"),
    ([{"type": "data", "name": "x", "seq": 7}], "events[0]:"),
    (["text"], "events"),
    ([], "events"),
]


def test_a_bad_event_is_named_and_nothing_is_written(here: Site) -> None:
    remote = Remote(here)
    for events, message in BAD:
        answer = remote.append(events)
        assert answer.status_code == 400, (events, answer.text)
        assert message in answer.json()["error"]["message"], (events, answer.text)
        good_first = remote.append([{"type": "data", "name": "x"}, *events]) if events else answer
        assert good_first.status_code == 400, (events, good_first.text)
        assert remote.get()["next"] == 2, events
    for body in ({}, {"epoch": 0, "first": 2, "events": TEXT}, {"epoch": 1, "events": TEXT}):
        assert remote.post("events", **body).status_code == 400
    big = [{"type": "data", "name": "x", "payload": "x" * (1 << 20)}]
    assert remote.append(big).status_code == 413
    assert remote.finish(outcome="error").status_code == 400
    assert remote.append(TEXT).status_code == 200
    assert remote.finish(outcome="incomplete", reason="length").status_code == 200


def test_a_body_that_breaks_off_writes_nothing(here: Site) -> None:
    remote = Remote(here)
    body = json.dumps({"epoch": 1, "first": 2, "events": TEXT}).encode()
    head = (
        f"POST /v1/producers/{remote.run}/events HTTP/1.1\r\nHost: 127.0.0.1\r\n"
        f"Authorization: {AS_A['authorization']}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    ).encode()
    for cut in (0, 1, len(body) // 2, len(body) - 1):
        with socket.create_connection(("127.0.0.1", here.port), timeout=30) as wire:
            wire.sendall(head + body[:cut])
    assert remote.get()["next"] == 2
    assert status_of(here.raw(head + body)) == 200
    assert remote.get()["next"] == 6
    assert remote.finish(first=6).status_code == 200


def test_who_dies_leaves_an_interrupted_run(here: Site) -> None:
    runs = [Remote(here, lease=1) for _ in range(3)]
    runs[1].append(TEXT)
    runs[2].append([*TEXT, *END[:2]])
    for remote in runs:
        end = remote.until_ended()
        assert (end["type"], end["outcome"]) == ("run-end", "interrupted")
        refused(remote.append(TEXT), "fenced")
        refused(remote.post("renew", epoch=1), "fenced")
        refused(remote.post("claim"), "closed")
    answer = here.client.get(f"/v1/runs/{runs[1].run}/wires/openai-chat", headers=AS_A)
    assert '"finish_reason":"stop"' not in answer.text


def test_another_producer_takes_over(here: Site) -> None:
    remote = Remote(here, lease=30)
    remote.append(TEXT)
    refused(remote.post("claim"), "leased")
    refused(remote.post("claim", epoch=9), "fenced")
    made = remote.post("claim", epoch=1).json()
    assert (made["epoch"], made["next"]) == (2, 7)
    refused(remote.append(END), "fenced")
    remote.epoch, remote.next = 2, 7
    assert remote.append(END).status_code == 200
    assert "run-claim" in [e["type"] for e in remote.events()]
    late = Remote(here, lease=1, takeover=600)
    late.append(TEXT)
    _until(lambda: late.post("claim").status_code == 200)
    state = late.get()
    assert state["epoch"] == 2
    late.epoch, late.next = 2, state["next"]
    assert late.finish().status_code == 200
    assert late.until_ended()["outcome"] == "complete"


def test_a_cancel_is_heard_and_ends_the_run(here: Site) -> None:
    remote = Remote(here)
    remote.append(TEXT)
    heard: list[dict[str, Any]] = []
    waiting = threading.Thread(target=lambda: heard.append(remote.get("/commands?wait=60")))
    waiting.start()
    here.client.post(f"/v1/runs/{remote.run}/cancel", headers=AS_A, json={"reason": "enough"})
    waiting.join(30)
    assert [page["cancelled"] for page in heard] == [True]
    (command,) = heard[0]["commands"]
    assert (command["type"], command["command"], command["reason"]) == (
        "control",
        "cancel",
        "enough",
    )
    assert remote.post("renew", epoch=1).json()["cancelled"] is True
    refused(remote.post("claim", epoch=1), "cancelled")
    assert remote.finish(outcome="cancelled").status_code == 200
    assert remote.finish(outcome="cancelled").json()["duplicate"] is True
    refused(remote.finish(outcome="complete"), "closed")
    events = remote.events()
    assert events[-1]["outcome"] == "cancelled"
    assert [e["type"] for e in events].count("control") == 1


def test_who_ignores_a_cancel_is_ended(here: Site) -> None:
    remote = Remote(here, lease=1, takeover=600)
    remote.append(TEXT)
    here.client.post(f"/v1/runs/{remote.run}/cancel", headers=AS_A)
    ended: list[dict[str, Any]] = []
    reading = threading.Thread(target=lambda: ended.append(remote.until_ended()))
    reading.start()
    while reading.is_alive():  # it renews for ever
        remote.post("renew", epoch=1, lease=300)
        reading.join(0.1)
    assert ended[0]["outcome"] == "cancelled"


def test_an_approval_reaches_the_producer(here: Site) -> None:
    remote = Remote(here)
    made = remote.append(CALL)
    assert made.status_code == 200, made.text
    path = f"/v1/runs/{remote.run}/approvals/a1"
    assert here.client.post(path, json={"approved": True}, headers=AS_A).status_code == 202
    page = remote.get("/commands?wait=60")
    answer = {k: v for k, v in page["commands"][0].items() if k != "number"}
    assert (answer["type"], answer["approved"]) == ("approval-answer", True)
    assert remote.get(f"/commands?wait=0&after={page['after']}")["commands"] == []
    assert remote.append([{**answer, "approved": False}]).status_code == 400
    assert remote.append([answer]).status_code == 200
    assert remote.finish().status_code == 200


def test_a_token_writes_one_run_and_nothing_else(here: Site) -> None:
    remote, other = Remote(here), Remote(here)
    path = f"/v1/runs/{remote.run}/attach-tokens"
    issued = here.client.post(path, json={"scopes": ["produce"]}, headers=AS_A)
    assert issued.status_code == 201, issued.text
    remote.headers = other.headers = {"authorization": f"Bearer {issued.json()['token']}"}
    assert remote.append(TEXT).status_code == 200
    assert remote.get("/commands?wait=0")["commands"] == []
    assert other.append(TEXT).status_code == 404
    new = here.client.post("/v1/producers", json={"prompt": "x"}, headers=remote.headers)
    assert new.status_code == 403
    for path, body in (
        ("/v1/runs", {"prompt": "x"}),
        (f"/v1/runs/{remote.run}/cancel", {}),
        (f"/v1/runs/{remote.run}/approvals/a", {"approved": True}),
    ):
        assert here.client.post(path, json=body, headers=remote.headers).status_code == 403, path
    reads = here.client.post(f"/v1/runs/{remote.run}/attach-tokens", json={}, headers=AS_A)
    reader = {"authorization": f"Bearer {reads.json()['token']}"}
    got = here.client.get(f"/v1/producers/{remote.run}", headers=reader)
    assert got.status_code == 403
    assert remote.finish().status_code == 200
    assert other.here.client.get(f"/v1/runs/{other.run}", headers=AS_A).json()["tail"] == 1


def test_a_thread_token_starts_runs_there(here: Site) -> None:
    path = "/v1/threads/remote-2/attach-tokens"
    token = here.client.post(path, json={"scopes": ["produce"]}, headers=AS_A).json()["token"]
    bearer = {"authorization": f"Bearer {token}"}
    remote = Remote(here, bearer)
    assert remote.append(TEXT).status_code == 200
    assert remote.finish().status_code == 200
    listed = here.client.get("/v1/threads/remote-2", headers=AS_A).json()
    assert [r["id"] for r in listed["runs"]] == [remote.run]
    body = {"prompt": "x", "thread": "remote-3"}
    assert here.client.post("/v1/producers", json=body, headers=bearer).status_code == 403


def test_one_key_starts_one_run(here: Site) -> None:
    headers = AS_A | {"idempotency-key": "job-1"}
    first = here.client.post("/v1/producers", json={"prompt": "x"}, headers=headers)
    again = here.client.post("/v1/producers", json={"prompt": "x"}, headers=headers)
    assert (first.status_code, again.status_code) == (201, 200)
    assert first.json()["run"] == again.json()["run"]
    other = here.client.post("/v1/producers", json={"prompt": "y"}, headers=headers)
    assert other.json()["error"]["code"] == "idempotency_key_reused"


def test_a_run_of_the_server_has_no_producer(here: Site) -> None:
    run = here.start("scenario:text", headers=AS_A)
    body = {"epoch": 1, "first": 2, "events": TEXT}
    answer = here.client.post(f"/v1/producers/{run}/events", json=body, headers=AS_A)
    refused(answer, "not_remote")


def test_a_restarted_server_goes_on(tmp_path: Any) -> None:
    store = f"sqlite:///{tmp_path / 'runs.db'}"
    with site(store=store, **MANY) as before:
        remote = Remote(before, lease=120)
        remote.append(TEXT)
    with site(store=store, **MANY) as after:
        remote.here = after
        assert remote.append(TEXT, first=2).json()["duplicate"] is True
        assert remote.post("renew", epoch=1, lease=120).status_code == 200
        assert remote.append(END).status_code == 200
        assert [e["seq"] for e in remote.events()] == list(range(1, 9))


def _until(condition: Any, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.1)


WORKER = """
import asyncio, sys
from tokenwire.client import produce

url, key, how = sys.argv[1:]
lease = {"dies-at-once": 1, "dies-later": 5}.get(how, 120)

async def main():
    async with produce(url, api_key=key, prompt="hi", lease=lease, thread=how) as run:
        print(run.id, flush=True)
        if how == "dies-at-once":
            await asyncio.to_thread(sys.stdin.read)
        for number in range(5):
            await run.text(f"word{number} ")
        if how == "raises":
            raise ValueError("http://secret")
        if how == "waits-for-cancel":
            while not run.cancelled:
                await asyncio.sleep(0.05)
        elif how != "completes":
            print("written", flush=True)
            await asyncio.to_thread(sys.stdin.read)

asyncio.run(main())
"""


@contextmanager
def worker(here: Site, how: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A producer in a process of its own, and its run."""
    process = subprocess.Popen(
        [sys.executable, "-c", WORKER, here.url, KEY_A, how],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        assert process.stdout is not None
        yield process, process.stdout.readline().strip()
    finally:
        process.kill()
        process.communicate()


def _frames_of(here: Site, run: str) -> list[Any]:
    return here.frames(f"/v1/runs/{run}/events", headers=AS_A)


@pytest.mark.parametrize("how", ["dies-at-once", "dies-later"])
def test_a_process_that_is_killed(sqlite_site: Site, how: str) -> None:
    with worker(sqlite_site, how) as (process, run):
        if how == "dies-later":
            assert process.stdout is not None
            assert process.stdout.readline() == "written\n"
        process.send_signal(signal.SIGKILL)
        frames = _frames_of(sqlite_site, run)
    assert json.loads(frames[-1].data)["outcome"] == "interrupted"
    words = "" if how == "dies-at-once" else "word0 word1 word2 word3 word4 "
    assert text_of(frames) == words


@pytest.mark.parametrize(
    ("how", "outcome"),
    [("completes", "complete"), ("raises", "error"), ("waits-for-cancel", "cancelled")],
)
def test_a_block_says_how_it_ended(sqlite_site: Site, how: str, outcome: str) -> None:
    with worker(sqlite_site, how) as (_, run):
        if how == "waits-for-cancel":
            sqlite_site.client.post(f"/v1/runs/{run}/cancel", headers=AS_A)
        frames = _frames_of(sqlite_site, run)
    assert json.loads(frames[-1].data)["outcome"] == outcome
    if how != "waits-for-cancel":
        assert text_of(frames) == "word0 word1 word2 word3 word4 "
    assert all(b"secret" not in frame.data for frame in frames)


def test_a_block_goes_on_over_a_restart(tmp_path: Any) -> None:
    store, port = f"sqlite:///{tmp_path / 'runs.db'}", free_port()

    async def main(before: Any) -> tuple[str, str]:
        patience = Patience(base=0.05, cap=0.2)
        how = {"api_key": KEY_A, "prompt": "hi", "lease": 120, "patience": patience}
        async with produce(f"http://127.0.0.1:{port}", **how) as run:
            await run.text("one ")
            await asyncio.to_thread(before.__exit__, None, None, None)
            writing = asyncio.create_task(run.text("two "))
            with site(store=store, port=port, **MANY) as after:
                await writing
                await run.text("three")
                await run.finish()
                frames = await asyncio.to_thread(_frames_of, after, run.id)
        return run.id, text_of(frames) + json.loads(frames[-1].data)["outcome"]

    before = site(store=store, port=port, **MANY)
    before.__enter__()
    assert asyncio.run(main(before))[1] == "one two threecomplete"


def test_an_answer_reaches_the_block(sqlite_site: Site) -> None:
    async def main() -> tuple[str, dict[str, Any]]:
        async with produce(sqlite_site.url, api_key=KEY_A, prompt="hi") as run:
            await run.append(*CALL)
            path = f"/v1/runs/{run.id}/approvals/a1"
            send = sqlite_site.client.post
            await asyncio.to_thread(send, path, json={"approved": True}, headers=AS_A)
            return run.id, await run.answer("a1")

    run, answer = asyncio.run(main())
    assert answer["approved"] is True
    types = [json.loads(f.data)["type"] for f in _frames_of(sqlite_site, run)]
    assert types[-2:] == ["approval-answer", "run-end"]


def test_who_was_fenced_and_is_silent_learns_it_at_once(
    sqlite_site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its lease is far from being renewed; the wait for commands ends. It then asks no more."""
    asked: list[str] = []
    request = RemoteRun._request

    async def noted(self: RemoteRun, method: str, path: str, *more: Any) -> Any:
        if self.epoch == 1:
            asked.append(path)
        return await request(self, method, path, *more)

    monkeypatch.setattr(RemoteRun, "_request", noted)

    async def main() -> None:
        how = {"api_key": KEY_A, "prompt": "hi", "lease": 300.0}
        with pytest.raises(ConflictError) as raised:
            async with asyncio.timeout(60), produce(sqlite_site.url, **how) as old:
                await old.append(*CALL)
                assert not old.fenced
                path = f"/v1/producers/{old.id}/claim"
                send = sqlite_site.client.post
                await asyncio.to_thread(send, path, json={"epoch": 1}, headers=AS_A)
                with pytest.raises(ConflictError, match=r"another|epoch"):
                    await old.answer("a1")
                assert old.fenced
                asked.clear()
                with pytest.raises(ConflictError):
                    await old.text("lost")
                await old.finish()
        assert raised.value.details["reason"] == "fenced"
        assert asked == []

    asyncio.run(main())


def test_a_wait_for_commands_ends_with_its_producer(
    sqlite_site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened, waiting = threading.Semaphore(0), Connections.waiting

    def noted(*args: Any) -> Any:
        opened.release()
        return waiting(*args)

    monkeypatch.setattr(Connections, "waiting", noted)
    made = sqlite_site.client.post("/v1/producers", json={"prompt": "x"}, headers=AS_A).json()
    path, epoch = f"/v1/producers/{made['run']}", made["epoch"]

    def wait(more: str) -> httpx.Response:
        with httpx.Client(base_url=sqlite_site.url, headers=AS_A, timeout=60) as client:
            return client.get(f"{path}/commands?wait=50{more}")

    with ThreadPoolExecutor(2) as pool:
        waits = [pool.submit(wait, more) for more in ("", f"&epoch={epoch}")]
        assert all(opened.acquire(timeout=30) for _ in waits)
        claim = sqlite_site.client.post(f"{path}/claim", json={"epoch": epoch}, headers=AS_A)
        page, refusal = (wait.result() for wait in waits)
    assert claim.status_code == 200
    assert page.json()["epoch"] == epoch + 1
    assert (refusal.status_code, refusal.json()["error"]["reason"]) == (409, "fenced")


def test_who_was_fenced_learns_it(sqlite_site: Site) -> None:
    async def main() -> str:
        run = ""
        with pytest.raises(ConflictError) as raised:
            async with produce(sqlite_site.url, api_key=KEY_A, prompt="hi") as old:
                run = old.id
                await old.text("one ")
                path = f"/v1/producers/{run}/claim"
                send = sqlite_site.client.post
                made = await asyncio.to_thread(send, path, json={"epoch": 1}, headers=AS_A)
                how = {"run": run, "epoch": made.json()["epoch"], "api_key": KEY_A}
                async with produce(sqlite_site.url, **how) as new:
                    await new.append({"type": "text-delta", "part": 0, "text": "two"})
                await old.text("lost")
        assert raised.value.details["reason"] == "fenced"
        return run

    assert text_of(_frames_of(sqlite_site, asyncio.run(main()))) == "one two"
