"""A key that is taken back ends what its holder reads, on every wire, though the reader is silent.

Always true: the answers here take far longer than the tests wait, so only the refusal ends them.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from support.server import simulator
from tokenwire.log.base import Store
from tokenwire.log.memory import MemoryStore
from tokenwire.log.sqlite.store import SQLiteStore
from tokenwire.observe.facts import Fact, FollowerGone
from tokenwire.observe.hooks import observe
from tokenwire.providers.registry import Registry
from tokenwire.server import recheck as recheck_module
from tokenwire.server.access import file_look
from tokenwire.server.app import create_app
from tokenwire.server.edge import auth as auth_module
from tokenwire.server.edge.auth import Auth, Identity
from tokenwire.server.edge.connections import Connections
from tokenwire.server.recheck import Recheck
from tokenwire.server.settings import Settings
from tokenwire.server.start import ThreadedServer

KEY, OTHER = "a-credential-of-carl", "a-credential-of-dora"
PROMPT = "scenario:slow?rate=2"
#: A run that speaks for far longer than a test waits.
LONG = "scenario:slow?rate=1"
#: A run that waits for a person, and says nothing meanwhile.
WAITS = "scenario:approval"
AG_UI = {
    "threadId": "t1",
    "runId": "r1",
    "messages": [{"id": "m", "role": "user", "content": PROMPT}],
    "tools": [],
    "context": [],
    "state": {},
    "forwardedProps": {},
}
UI = {
    "id": "c",
    "messages": [{"id": "u", "role": "user", "parts": [{"type": "text", "text": PROMPT}]}],
}
A2A = {"message": {"messageId": "a1", "role": "ROLE_USER", "parts": [{"text": PROMPT}]}}
LANGGRAPH = {
    "assistant_id": "demo",
    "input": {"messages": [{"role": "user", "content": PROMPT}]},
}
SEND = {"type": "send", "requestId": "r1", "trigger": "submit-message", **UI}
CHAT = {"model": "demo", "stream": True, "messages": [{"role": "user", "content": PROMPT}]}
SOCKETS = {
    "/ws": {"op": "start", "request": {"prompt": PROMPT}},
    "/ag-ui": AG_UI,
    "/api/chat/ws": SEND,
}
STREAMS: dict[str, tuple[str, str, Any]] = {
    "native": ("GET", "/v1/runs/{run}/events", None),
    "tokens": ("GET", f"/chat/stream?prompt={PROMPT}", None),
    "ag-ui": ("POST", "/ag-ui", AG_UI),
    "ai-sdk": ("POST", "/api/chat", UI),
    "openai": ("POST", "/v1/chat/completions", CHAT),
    "durable": ("GET", "/ds/v1/stream/runs/{run}?offset=-1&live=sse", None),
    "anthropic": ("POST", "/v1/messages", {**CHAT, "max_tokens": 900}),
    "responses": ("POST", "/v1/responses", {"model": "demo", "stream": True, "input": PROMPT}),
    "a2a": ("POST", "/a2a/message:stream", A2A),
    "a2a-subscribe": ("GET", "/a2a/tasks/{run}:subscribe", None),
    "langgraph": ("POST", "/langgraph/threads/lg/runs/stream", LANGGRAPH),
    "langgraph-join": ("GET", "/langgraph/threads/t/runs/{run}/stream", None),
    "langgraph-thread": (
        "POST",
        "/langgraph/threads/t/stream/events",
        {"channels": ["messages", "values"]},
    ),
}
#: What answers in one piece, and waits for that: the end of a run, or of the turn before.
WAITING: dict[str, tuple[str, str, Any]] = {
    "openai": ("POST", "/v1/chat/completions", {**CHAT, "stream": False}),
    "responses": ("POST", "/v1/responses", {"model": "demo", "input": PROMPT}),
    "anthropic": ("POST", "/v1/messages", {**CHAT, "stream": False, "max_tokens": 900}),
    "a2a": ("POST", "/a2a/message:send", A2A),
    "langgraph-wait": ("POST", "/langgraph/threads/lg/runs/wait", LANGGRAPH),
    "langgraph-join": ("GET", "/langgraph/threads/t/runs/{run}/join", None),
    "queued": ("POST", "/api/chat?history=thread&while_busy=queue", {**UI, "id": "t"}),
    "producer": ("GET", "/v1/producers/{remote}/commands?wait=600", None),
}


class FileOfKeys:
    """A key file: its holder's lines."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.write(f"carl:{KEY}", f"dora:{OTHER}")

    def write(self, *lines: str) -> None:
        """Other keys, in one step, as a person's editor or a mounted secret does it."""
        draft = self.path.with_suffix(".new")
        draft.write_text("\n".join(lines))
        draft.chmod(0o600)
        draft.replace(self.path)

    def take_back(self) -> None:
        self.write(f"dora:{OTHER}")


class Keys:
    """The application's own check: what it holds for right, and what it was asked."""

    def take_back(self) -> None:
        self.principals[KEY] = None

    def __init__(self) -> None:
        self.principals: dict[str, str | None] = {KEY: "carl", OTHER: "dora"}
        self.asked: list[str] = []
        self.fault: Exception | None = None

    async def verify(self, key: str) -> str | None:
        self.asked.append(key)
        if self.fault is not None and key == KEY:
            raise self.fault
        return self.principals.get(key)


@contextmanager
def with_key_file(
    monkeypatch: pytest.MonkeyPatch, folder: Path, store: Store | None = None, **settings: Any
) -> Iterator[tuple[str, FileOfKeys]]:
    monkeypatch.setattr(file_look, "_LOOK", 0.02)
    monkeypatch.setattr(file_look, "_REST", 0.02)
    keys = FileOfKeys(folder / "keys")
    app = create_app(
        Settings(
            port=0, graceful_stop=2.0, access_log=False, api_key_file=str(keys.path), **settings
        ),
        registry=Registry(demo_url=simulator().server.url + "/v1", env={}),
        store=store or MemoryStore(),
    )
    app.state.recheck._every = 0.05
    with ThreadedServer(app) as server:
        yield server.url, keys


@contextmanager
def checked(
    monkeypatch: pytest.MonkeyPatch, store: Store | None = None, **settings: Any
) -> Iterator[tuple[str, Keys]]:
    monkeypatch.setattr(auth_module, "RECHECK_SECONDS", 0.2)
    keys = Keys()
    app = create_app(
        Settings(port=0, graceful_stop=2.0, access_log=False, **settings),
        registry=Registry(demo_url=simulator().server.url + "/v1", env={}),
        store=store or MemoryStore(),
        auth=Auth(verify=keys.verify),
    )
    app.state.recheck._every = 0.05
    with ThreadedServer(app) as server:
        yield server.url, keys


def bearer(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


@pytest.mark.parametrize("fault", [None, KeyError("x")], ids=["refused", "raised"])
@pytest.mark.parametrize("path", SOCKETS)
def test_a_silent_socket_ends_with_its_key(
    path: str, fault: Exception | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    with checked(monkeypatch) as (url, keys):

        def take_back() -> None:
            keys.principals[KEY], keys.fault = None, fault

        socket_ends(url, path, take_back)


@pytest.mark.parametrize("path", SOCKETS)
def test_a_silent_socket_ends_when_its_key_leaves_the_file(
    path: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with with_key_file(monkeypatch, tmp_path) as (url, keys):
        socket_ends(url, path, keys.take_back)


def socket_ends(url: str, path: str, take_back: Callable[[], None]) -> None:
    """It ends once the key was taken back, and another's goes on."""
    address = url.replace("http", "ws", 1) + path
    with (
        connect(address, proxy=None, additional_headers=bearer(KEY)) as socket,
        connect(address, proxy=None, additional_headers=bearer(OTHER)) as other,
    ):
        for wire in (socket, other):
            wire.send(json.dumps(SOCKETS[path]))
            wire.recv(timeout=30)
        take_back()
        with pytest.raises(ConnectionClosed) as closed:
            while True:
                socket.recv(timeout=30)
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1008
        assert "no longer valid" in closed.value.rcvd.reason
        for _ in range(3):
            other.recv(timeout=30)  # another's key is not concerned


def test_a_socket_whose_first_message_brought_the_key_ends_with_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with checked(monkeypatch) as (url, keys):
        with connect(url.replace("http", "ws", 1) + "/ws", proxy=None) as socket:
            socket.send(json.dumps({"op": "auth", "key": KEY}))
            assert "ok" in str(socket.recv(timeout=30))
            keys.principals[KEY] = "dora"  # the key of somebody else now
            with pytest.raises(ConnectionClosed) as closed:
                socket.recv(timeout=30)
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1008


@pytest.mark.parametrize("wire", STREAMS)
@pytest.mark.parametrize("is_file", [False, True], ids=["check", "file"])
def test_a_stream_ends_with_its_key(
    wire: str, is_file: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    method, path, body = STREAMS[wire]
    gone: list[FollowerGone] = []

    def note(fact: Fact) -> None:
        if isinstance(fact, FollowerGone):
            gone.append(fact)

    with (
        with_key_file(monkeypatch, tmp_path, chat_get="on")
        if is_file
        else checked(monkeypatch, chat_get="on") as (url, keys),
        httpx.Client(base_url=url, timeout=15, trust_env=False, headers=bearer(KEY)) as client,
        contextlib.closing(_Observed(note)),
    ):
        run = client.post("/v1/runs", json={"prompt": PROMPT, "thread": "t"}).json()["id"]
        with client.stream(method, path.format(run=run), json=body) as answer:
            assert answer.status_code < 300
            pieces = answer.iter_bytes()
            data = next(pieces)
            keys.take_back()
            try:
                for piece in pieces:
                    data += piece
            except httpx.RemoteProtocolError:
                pass  # a wire whose orderly end would be the end of the answer breaks off
        assert b"[DONE]" not in data
        if wire == "native":
            assert b'"type":"reconnect","after_ms":1000,"reason":"revoked"' in data
        if wire != "durable":
            assert [fact.why for fact in gone] == ["revoked"]
        assert client.get(f"/v1/runs/{run}/events").status_code == 401


def test_a_session_of_the_page_and_a_token_that_reads_one_run_end_with_their_key(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with (
        checked(monkeypatch) as (url, keys),
        httpx.Client(base_url=url, timeout=15, trust_env=False) as client,
    ):
        run = client.post("/v1/runs", json={"prompt": PROMPT}, headers=bearer(KEY)).json()["id"]
        assert client.post("/v1/session", json={"key": KEY}).status_code == 200
        with client.stream("GET", f"/v1/runs/{run}/events") as answer:
            assert answer.status_code == 200
            pieces = answer.iter_bytes()
            data = next(pieces)
            keys.principals[KEY] = None
            data += b"".join(pieces)
        assert b'"reason":"revoked"' in data


@pytest.mark.parametrize("kind", ["session", "attach", "token", "ticket"])
def test_what_was_made_of_a_key_ends_when_it_leaves_the_file(
    kind: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with (
        with_key_file(monkeypatch, tmp_path) as (url, keys),
        httpx.Client(base_url=url, timeout=30, trust_env=False) as client,
    ):
        run = client.post("/v1/runs", json={"prompt": PROMPT}, headers=bearer(KEY)).json()["id"]
        path, headers = f"/v1/runs/{run}/events", dict[str, str]()
        if kind == "session":
            assert client.post("/v1/session", json={"key": KEY}).status_code == 200
        else:
            body = {"attach": None, "token": {"scopes": ["read"]}, "ticket": {"ticket": True}}[kind]
            made = client.post(f"/v1/runs/{run}/attach-tokens", json=body, headers=bearer(KEY))
            if kind == "ticket":
                path += f"?ticket={made.json()['ticket']}"
            else:
                headers = bearer(made.json()["token"])
        with client.stream("GET", path, headers=headers) as answer:
            assert answer.status_code == 200
            pieces = answer.iter_bytes()
            data = next(pieces)
            keys.take_back()
            data += b"".join(pieces)
        assert b'"reason":"revoked"' in data
        assert b"run-end" not in data
        assert client.get(path, headers=headers).status_code == 401


@pytest.mark.parametrize(
    "path",
    [
        "/v1/runs/{run}/events?live=long-poll&after={tail}",
        "/ds/v1/stream/runs/{run}?live=long-poll&offset=now",
        "/v1/threads/t/events?live=long-poll",
    ],
)
def test_a_request_that_waits_is_refused_when_its_key_leaves_the_file(
    path: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The run says nothing while it waits for a person, for far longer than the test waits."""
    settings = {"long_poll_timeout": 600.0, "heartbeat": 500.0}
    with (
        with_key_file(monkeypatch, tmp_path, **settings) as (url, keys),
        httpx.Client(base_url=url, timeout=60, trust_env=False, headers=bearer(KEY)) as client,
    ):
        run = client.post("/v1/runs", json={"prompt": WAITS, "thread": "t"}).json()["id"]
        info = client.get(f"/v1/runs/{run}").json()
        while info["state"] != "waiting":
            info = client.get(f"/v1/runs/{run}").json()
        at = path.format(run=run, tail=info["tail"])
        if "threads" in path:
            seen = client.get("/v1/threads/t/events?live=no").json()
            at += f"&after={seen['next']}"
        opened = threading.Event()
        monkeypatch.setattr(Connections, "open", _after(Connections.open, opened.set))
        threading.Thread(target=lambda: opened.wait(50) and keys.take_back(), daemon=True).start()
        answer = client.get(at)
        assert answer.status_code == 401, answer.text
        assert "no longer valid" in answer.text


@pytest.mark.parametrize("what", WAITING)
def test_an_answer_of_one_piece_is_refused_when_its_key_leaves_the_file(
    what: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """What it waits for takes far longer than the test waits."""
    method, path, body = WAITING[what]
    settings = {"long_poll_timeout": 600.0, "heartbeat": 500.0}
    with (
        with_key_file(monkeypatch, tmp_path, **settings) as (url, keys),
        httpx.Client(base_url=url, timeout=60, trust_env=False, headers=bearer(KEY)) as client,
    ):
        ids = {"run": client.post("/v1/runs", json={"prompt": LONG, "thread": "t"}).json()["id"]}
        remote = client.post("/v1/producers", json={"prompt": "x", "lease": 300})
        ids["remote"] = remote.json()["run"]
        opened = threading.Event()
        monkeypatch.setattr(Connections, "open", _after(Connections.open, opened.set))
        threading.Thread(target=lambda: opened.wait(50) and keys.take_back(), daemon=True).start()
        answer = client.request(method, path.format(**ids), json=body)
        assert answer.status_code == 401, answer.text
        assert "no longer valid" in answer.text
    assert opened.is_set()


def _after(function: Callable[..., Any], then: Callable[[], None]) -> Callable[..., Any]:
    def both(*args: Any, **kwargs: Any) -> Any:
        value = function(*args, **kwargs)
        then()
        return value

    return both


@pytest.mark.parametrize("path", ["/v1/threads?live=sse", "/v1/threads/t/events", "/ws"])
@pytest.mark.parametrize("is_here", [True, False], ids=["here", "elsewhere"])
def test_what_a_session_has_open_ends_when_its_user_signs_out(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, is_here: bool, path: str
) -> None:
    stores = [SQLiteStore(str(tmp_path / "log.db")) for _ in range(2)]
    with (
        checked(monkeypatch, stores[0]) as (one, _),
        checked(monkeypatch, stores[1]) as (two, _),
        httpx.Client(timeout=30, trust_env=False) as client,
    ):
        if is_here:
            monkeypatch.setattr(auth_module, "RECHECK_SECONDS", 3600.0)
        signed_in = client.post(f"{one}/v1/session", json={"key": KEY})
        cookie = {"cookie": signed_in.headers["set-cookie"].partition(";")[0]}
        place = one if is_here else two
        sign_out = ("DELETE", f"{place}/v1/session")
        if path == "/ws":
            with connect(one.replace("http", "ws") + path, additional_headers=cookie) as socket:
                socket.send(json.dumps({"op": "follow-threads"}))
                while "snapshot" not in str(socket.recv(timeout=30)):
                    pass
                assert client.request(*sign_out, headers=cookie).status_code == 204
                with pytest.raises(ConnectionClosed) as closed:
                    while True:
                        socket.recv(timeout=30)
                assert closed.value.rcvd is not None
                assert closed.value.rcvd.code == 1008
            return
        with client.stream("GET", one + path, headers=cookie) as answer:
            pieces = answer.iter_bytes()
            data = next(pieces)
            assert client.request(*sign_out, headers=cookie).status_code == 204
            data += b"".join(pieces)
        assert b'"reason":"revoked"' in data
        assert client.get(one + path, headers=cookie).status_code == 401


def test_a_key_that_holds_is_asked_about_once_for_all_of_its_connections(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = [1000.0]
    asked: list[str] = []

    async def verify(key: str) -> str | None:
        asked.append(key)
        await asyncio.sleep(0)
        return "carl"

    class Nobody:
        def poke(self) -> None:
            """Heartbeats."""

    async def main() -> None:
        connections, auth = Connections(max_age=1e6), Auth(verify=verify)
        identity = await auth.check_key(KEY)
        recheck = Recheck(connections, _Confirm(auth))  # type: ignore[arg-type]
        monkeypatch.setattr(auth_module.time, "monotonic", lambda: now[0])
        auth._verdicts.clear()  # as after ten thousand others
        opened = [connections.open(Nobody(), identity) for _ in range(50)]
        connections.open(Nobody(), Identity("ann", "key", b"digest"))
        connections.open(Nobody())
        for _ in range(600):  # ten minutes, a look a second
            now[0] += 1.0
            recheck.sweep(now[0])
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        assert asked[:1] == [KEY]
        assert 9 <= len(asked) - 1 <= 10
        assert all(connection.leaving is None for connection in opened)
        await connections.aclose()

    asyncio.run(main())


def test_a_check_that_never_answers_is_no_yes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recheck_module, "_CHECK_SECONDS", 0.05)
    is_slow = threading.Event()

    async def verify(key: str) -> str | None:
        if is_slow.is_set():
            await asyncio.Event().wait()
        return "carl"

    class Waits:
        def __init__(self) -> None:
            self.poked = asyncio.Event()

        def poke(self) -> None:
            self.poked.set()

    async def main() -> None:
        monkeypatch.setattr(auth_module, "RECHECK_SECONDS", 0.0)
        connections, auth = Connections(), Auth(verify=verify)
        identity = await auth.check_key(KEY)
        recheck = Recheck(connections, _Confirm(auth))  # type: ignore[arg-type]
        reader = Waits()
        connection = connections.open(reader, identity)
        is_slow.set()
        recheck.sweep(asyncio.get_running_loop().time())
        await asyncio.wait_for(reader.poked.wait(), 60)
        assert connection.leaving == "revoked"
        await recheck.aclose()
        await connections.aclose()

    asyncio.run(main())


class _Observed:
    def __init__(self, note: Callable[[Fact], None]) -> None:
        self.close = observe(note)


class _Confirm:
    """What `Recheck` needs of `Identify`."""

    def __init__(self, auth: Auth) -> None:
        self.auth = auth

    async def confirm(self, identity: Identity) -> None:
        if not await self.auth.is_current(identity):
            raise AssertionError("the key holds")
