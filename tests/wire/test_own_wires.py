"""Wires of one's own: from an installed package, in `Live`, in a route of one's own; and broken
ones, which are named and harm nobody else."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI, Request

from support.mounted import everybody, live_of
from support.mounted import serving as serving_app
from support.server import Site
from support.server import site as serving
from tokenwire.errors import ConfigError
from tokenwire.events.model import RunEnd, RunStart, TextDelta
from tokenwire.events.order import Order
from tokenwire.framing.sse import SSEDecoder
from tokenwire.server import Live, OwnWire, Settings, respond
from tokenwire.server.own_wires import installed as module
from tokenwire.server.own_wires.installed import checked
from tokenwire.testing import check_wire
from tokenwire.wire.catalogue import WIRES
from tokenwire.wire.conformance import RUNS, faults
from tokenwire.wire.native import NativeEncoder
from tokenwire.wire.token_sse import TokenEncoder

ROOT = Path(__file__).resolve().parents[2]
PLUGIN = Path(__file__).parent / "plugin"
sys.path.insert(0, str(PLUGIN / "src"))
from lines_wire import LATER, LINES, Half, Lines, Raises, Text  # noqa: E402


class Words(NativeEncoder):
    """An event stream with state: ``word`` and ``end`` events, a count in front of each."""

    name = "words"  # type: ignore[misc]
    stateless = False  # type: ignore[misc]
    encode_json = None  # type: ignore[assignment]

    def __init__(self) -> None:
        self.count = 0

    def encode(self, event: Any, cursor: str) -> bytes:
        word = self.word(event)
        return b"id: %b\ndata: %b\n\n" % (cursor.encode(), word) if word else b""

    def word(self, event: Any) -> bytes:
        if isinstance(event, TextDelta):
            self.count += 1
            return json.dumps([self.count, event.text]).encode()
        if isinstance(event, RunEnd):
            return json.dumps([self.count, {"end": event.outcome}]).encode()
        return b""

    def skip(self, event: Any) -> None:
        self.word(event)

    def reopen(self) -> bytes:
        return b": again\n\n"


# --- the contract, and the helper that checks it -------------------------------------------------


def test_the_runs_of_the_check_are_runs() -> None:
    for events in RUNS.values():
        order = Order()
        for _, event in events:
            order.check(event)
        assert isinstance(events[0][1], RunStart)
        assert isinstance(events[-1][1], RunEnd)


@pytest.mark.parametrize("name", ["native", "token", *WIRES])
def test_our_own_wires_keep_the_contract(name: str) -> None:
    makers: dict[str, Callable[[], Any]] = {
        "native": NativeEncoder,
        "token": lambda: TokenEncoder("r" * 22),
    }
    assert faults(makers.get(name) or (lambda: WIRES[name](None))) == []


def test_the_examples_keep_it() -> None:
    check_wire(LINES)
    check_wire(Lines)
    check_wire(Words)
    check_wire(lambda: Words())


class Forgetful(Words):
    def skip(self, event: Any) -> None:
        pass


class Boastful(Words):
    def word(self, event: Any) -> bytes:
        return super().word(event).replace(b'"error"', b'"complete"')


class Mute(Words):
    def encode(self, event: Any, cursor: str) -> bytes:
        return b"" if isinstance(event, RunEnd) else super().encode(event, cursor)


class Double(Words):
    def encode(self, event: Any, cursor: str) -> bytes:
        frame = super().encode(event, cursor)
        return frame and b"data: first of two\n\n" + frame


class EarlyId(Words):
    def encode(self, event: Any, cursor: str) -> bytes:
        frame = super().encode(event, cursor)
        return frame and frame + b"data: second of two\n\n"


class Nameless(Words):
    def encode(self, event: Any, cursor: str) -> bytes:
        return super().encode(event, "x" + cursor)


class Random(Words):
    made = 0

    def __init__(self) -> None:
        super().__init__()
        Random.made += 1
        self.count = Random.made


class LoudOpening(Words):
    def reopen(self) -> bytes:
        return b"id: 1-0\ndata: open\n\n"


class LoudHeart(Words):
    def heartbeat(self) -> bytes:
        return b"id: 99\ndata: x\n\n"


@pytest.mark.parametrize(
    ("encoder", "words"),
    [
        (Raises, "complete: encode() of event 1-0000000000000001: ValueError: the plugin is at"),
        (Text, "encode() returned str, not bytes"),
        (Forgetful, "complete: resumed after event"),
        (Boastful, "error: looks the same as a complete answer"),
        (Mute, "nothing is sent for the end"),
        (Double, "frames twice or never"),
        (EarlyId, "frames twice or never"),
        (Nameless, "no frame has an event's cursor as its id"),
        (Random, "two readers get different bytes"),
        (LoudOpening, "must have no id"),
        (LoudHeart, "heartbeat() sends an id"),
    ],
)
def test_a_wire_that_breaks_the_contract_is_told_so(encoder: Any, words: str) -> None:
    if encoder is Forgetful:
        encoder = type("Forgetful", (Forgetful,), {"reopen": lambda self: b""})
    with pytest.raises(AssertionError) as caught:
        check_wire(encoder)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("wire", "words"),
    [
        (42, "builtins.int is not a wire"),
        (None, "is not a wire"),
        (Half, "has no method 'encode'"),
        (lambda: None, "'name' is not a text"),
        (lambda: 1 / 0, "made no encoder: ZeroDivisionError"),
        (OwnWire(name="A B", encoder=Lines), "needs a name of 1 to 40"),
        (OwnWire(name="x", encoder=Lines, path="no"), "needs a path such as"),
        (OwnWire(name="x", encoder=Lines, path="/a/{b}"), "needs a path such as"),
        (OwnWire(name="x", encoder=Lines, path="/a/"), "needs a path such as"),
        (OwnWire(name="x", encoder=type("T", (Lines,), {"content_type": "a\r\nb: c"})), "no media"),
        (OwnWire(name="x", encoder=type("T", (Lines,), {"headers": {"a": "b\nc"}})), "headers"),
        (OwnWire(name="x", encoder=type("T", (Lines,), {"stateless": 1})), "'stateless' of"),
        (Raises, "the plugin is at fault"),
        (Text, "returned str, not bytes"),
    ],
)
def test_what_is_no_wire_is_refused_at_the_start(wire: Any, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        checked(wire)
    assert words in str(caught.value)
    with pytest.raises(ConfigError):
        Live("memory:", wires=[wire])


@pytest.mark.parametrize("name", ["ui", "native", "openai", "events", "page"])
def test_a_name_that_is_taken(name: str) -> None:
    with pytest.raises(ConfigError, match=f"the name '{name}' of a wire is taken"):
        Live("memory:", wires=[OwnWire(name=name, encoder=Lines)])


@pytest.mark.parametrize("path", ["/v1/runs", "/ag-ui", "/livez", "/v1/models/x"])
def test_a_path_that_is_taken(path: str) -> None:
    with pytest.raises(ConfigError, match="is taken"):
        Live("memory:", wires=[OwnWire(name="x", encoder=Lines, path=path)])
    with pytest.raises(ConfigError, match="is taken"):
        Live("memory:", wires=[LINES, OwnWire(name="x", encoder=Lines, path="/lines")])


# --- in the server -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    with serving(wires=[LINES, OwnWire(name="words", encoder=Words, path="/words"), LATER]) as site:
        yield site


def test_its_route_starts_a_run_and_reads_one(site: Site) -> None:
    answer = site.client.post("/lines", json={"prompt": "scenario:text"})
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/x-ndjson"
    assert answer.headers["x-lines"] == "1"
    run = answer.headers["tokenwire-run"]
    lines = [json.loads(line) for line in answer.text.splitlines() if line]
    assert lines[-1]["end"] == "complete"
    (part,) = site.client.get(f"/v1/runs/{run}").json()["message"]["content"]
    assert "".join(line.get("say", "") for line in lines) == part["text"]
    assert site.client.get(f"/lines/{run}").text.split() == answer.text.split()
    assert site.client.get(f"/v1/runs/{run}/wires/lines").text.split() == answer.text.split()
    for number in (0, len(lines) // 2, len(lines) - 2):
        again = site.client.get(f"/lines/{run}", headers={"last-event-id": lines[number]["at"]})
        assert [json.loads(line) for line in again.text.splitlines() if line] == lines[number + 1 :]
    assert site.client.get(f"/lines/{run}", params={"after": lines[-1]["at"]}).status_code == 204


def test_a_wire_with_state_skips_and_opens_again(site: Site) -> None:
    first = site.client.post("/words", json={"prompt": "scenario:text"})
    frames = list(SSEDecoder().feed(first.content))
    run = first.headers["tokenwire-run"]
    for number in range(0, len(frames) - 1, 5):
        headers = {"last-event-id": frames[number].id}
        again = site.client.get(f"/words/{run}", headers=headers)
        rest = list(SSEDecoder().feed(again.content))
        assert [(f.id, f.data) for f in rest] == [(f.id, f.data) for f in frames[number + 1 :]]
        assert b": again\n\n" in again.content
    resumed = site.client.post(
        "/words", json={"prompt": "x"}, headers={"last-event-id": f"{run}:{frames[0].id}"}
    )
    assert [f.id for f in SSEDecoder().feed(resumed.content)] == [f.id for f in frames[1:]]


def test_it_is_refused_as_the_native_routes_refuse(site: Site) -> None:
    for answer, status, code in (
        (site.client.post("/lines", json={}), 400, "bad_request"),
        (site.client.post("/lines", json={"prompt": "x", "model": "y"}), 400, "unknown_model"),
        (site.client.get("/lines/none"), 404, "unknown_run"),
        (site.client.get("/lines/none", headers={"last-event-id": "1"}), 404, "unknown_run"),
    ):
        assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
    run = site.start("scenario:text")
    site.frames(f"/v1/runs/{run}/events")
    answer = site.client.get(f"/lines/{run}", headers={"last-event-id": "2-0000000000000000"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "bad_cursor")
    unknown = site.client.get(f"/v1/runs/{run}/wires/none").json()["error"]["message"]
    assert "anthropic" in unknown
    assert "lines" in unknown


def test_the_document_describes_it(site: Site) -> None:
    paths = site.client.get("/openapi.json").json()["paths"]
    assert "application/x-ndjson" in paths["/lines"]["post"]["responses"]["200"]["content"]
    assert "204" in paths["/lines/{run}"]["get"]["responses"]


def test_one_that_fails_in_the_middle_breaks_off_its_own_answer_only(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    run = site.start("scenario:text")
    native = site.frames(f"/v1/runs/{run}/events")
    for path in (f"/later/{run}", f"/v1/runs/{run}/wires/later"):
        with pytest.raises(httpx.RemoteProtocolError):
            site.client.get(path)
    with pytest.raises(httpx.RemoteProtocolError):  # while it is being written
        site.client.post("/later", json={"prompt": "scenario:text"})
    assert [f.id for f in site.frames(f"/v1/runs/{run}/events")] == [f.id for f in native]
    newest = site.client.get("/v1/models")
    assert newest.status_code == 200
    said = [r for r in caplog.records if "the wire 'later' failed" in r.getMessage()]
    assert said
    assert "it failed in the middle" in str(said[0].exc_info)


# --- in an application ---------------------------------------------------------------------------


def own_app(**more: Any) -> FastAPI:
    live = live_of(wires=[LINES], wire="lines", **more)
    app = FastAPI(lifespan=live.lifespan)
    app.include_router(live.router(prefix="/ai", user=everybody, wires=["native", LINES, Words]))

    @app.post("/ask")
    async def ask(prompt: str) -> Any:
        return await live.start(prompt)

    @app.get("/ask/{run}")
    async def again(run: str, request: Request, wire: str | None = None) -> Any:
        return await live.resume(run, request.headers.get("last-event-id"), wire=wire)

    @app.get("/own/{run}")
    async def own(run: str, request: Request) -> Any:
        after = request.headers.get("last-event-id")
        follower = await live.runs.follow(run, after=after)
        return respond(follower, Words(), heartbeat=0.05, headers={"x-mine": "yes"})

    @app.get("/later/{run}")
    async def later(run: str) -> Any:
        return respond(await live.runs.follow(run), LATER.encoder())

    return app


def test_in_live_and_in_a_route_of_ones_own() -> None:
    with serving_app(own_app()) as url, httpx.Client(base_url=url, timeout=60) as client:
        answer = client.post("/ask", params={"prompt": "scenario:text"})
        assert answer.headers["content-type"] == "application/x-ndjson"
        run = answer.headers["tokenwire-run"]
        lines = [json.loads(line) for line in answer.text.splitlines() if line]
        assert lines[-1]["end"] == "complete"
        assert client.get(f"/ask/{run}").text.split() == answer.text.split()
        last = {"last-event-id": lines[-1]["at"]}
        assert client.get(f"/ask/{run}", headers=last).status_code == 204
        assert client.get(f"/ask/{run}", params={"wire": "events"}).text.startswith(": ok")
        # a route of its own
        whole = client.get(f"/own/{run}")
        assert whole.headers["x-mine"] == "yes"
        frames = list(SSEDecoder().feed(whole.content))
        rest = client.get(f"/own/{run}", headers={"last-event-id": frames[0].id})
        here = [(f.id, f.data) for f in SSEDecoder().feed(rest.content)]
        assert here == [(f.id, f.data) for f in frames[1:]] != []
        assert b": again\n\n" in rest.content
        end = client.get(f"/own/{run}", headers={"last-event-id": lines[-1]["at"]})
        assert (end.status_code, end.content) == (204, b"")
        # in the router
        assert client.get(f"/ai/lines/{run}").status_code in (200, 404)
        started = client.post("/ai/lines", json={"prompt": "scenario:text"})
        assert started.text.splitlines()[-1].endswith('"end": "complete"}')
        # one that fails
        with pytest.raises(httpx.RemoteProtocolError):
            client.get(f"/later/{run}")
        assert client.get(f"/own/{run}").content == whole.content


def test_heartbeat_and_age_of_a_route_of_ones_own() -> None:
    live = live_of(settings=Settings(graceful_stop=1.0))
    app = FastAPI(lifespan=live.lifespan)

    @app.post("/start")
    async def start() -> Any:
        return {"run": (await live.runs.start(request(), model="demo")).id}

    @app.get("/own/{run}")
    async def own(run: str, heartbeat: float = 60.0, max_age: float = 60.0) -> Any:
        follower = await live.runs.follow(run)
        return respond(follower, Words(), heartbeat=heartbeat, max_age=max_age)

    def request() -> Any:
        from tokenwire import user
        from tokenwire.events.request import Request as ModelRequest

        return ModelRequest(messages=[user("scenario:stall")])

    with serving_app(app) as url, httpx.Client(base_url=url, timeout=60) as client:
        run = client.post("/start").json()["run"]
        with client.stream("GET", f"/own/{run}", params={"heartbeat": 0.05}) as answer:
            assert any(line == ": keep-alive" for line in answer.iter_lines())
        # It ends by itself at its age, and its reader comes back.
        for _ in range(2):
            body = client.get(f"/own/{run}", params={"max_age": 0.2}).text
            assert '"reason":"max_age"' in body


@pytest.mark.parametrize("name", ["heartbeat", "max_age", "retry_ms"])
@pytest.mark.parametrize("value", [0, -1, float("nan"), float("inf")])
def test_times_that_are_none(name: str, value: float) -> None:
    class Closed:
        closed = False
        after, run = 0, "x"

        def close(self, *, returning: bool = False) -> None:
            self.closed = True

    follower: Any = Closed()
    with pytest.raises(ConfigError, match=name):
        respond(follower, Words(), **{name: value})  # type: ignore[arg-type]
    assert follower.closed


def test_an_unknown_wire_is_named() -> None:
    with pytest.raises(ConfigError, match="unknown wire 'lins'; choose of events, tokens, lines"):
        Live("memory:", wires=[LINES], wire="lins")


def test_a_live_that_starts_again_has_its_wires() -> None:
    async def main() -> None:
        live = live_of(wire=Words)
        for _ in range(2):
            async with live:
                response = await live.start("scenario:text")
                assert response.headers["content-type"] == "text/event-stream"
                assert "words" in live.server.state.own_wires
                response.discard()  # type: ignore[attr-defined]

    asyncio.run(main())


# --- installed -----------------------------------------------------------------------------------

SCRIPT = """
import logging
logging.basicConfig(level="ERROR", format="%(message)s")
import httpx
from tokenwire.server.app import create_app
from tokenwire.server.settings import Settings
from tokenwire.server.start import ThreadedServer

app = create_app(Settings(port=0, access_log=False))
print(sorted(app.state.own_wires))
with ThreadedServer(app) as server:
    prompt = {"prompt": "scenario:text?rate=3000"}
    answer = httpx.post(server.url + "/lines", json=prompt, timeout=60)
    print(answer.status_code, answer.text.splitlines()[-1].partition('"end"')[2])
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("site")
    options = ["--quiet", "--no-deps", "--no-build-isolation", "--no-index", "--target"]
    command = [sys.executable, "-m", "pip", "install", *options, str(target), str(PLUGIN)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return target


def test_one_that_never_ends_does_not_keep_the_server_from_starting(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    end = threading.Event()

    class Endless(Lines):
        name = "endless"

        def encode(self, event: Any, cursor: str) -> bytes:
            end.wait()
            return b""

    class Point:
        name, value, group = "slow", "somewhere:Endless", module.GROUP

        def load(self) -> Any:
            return Endless

    monkeypatch.setattr(module, "SECONDS", 0.2)
    monkeypatch.setattr(module, "entry_points", lambda group: [Point()])
    try:
        assert module.installed_wires() == []
    finally:
        end.set()
    (line,) = [r.getMessage() for r in caplog.records if "wire plugin" in r.getMessage()]
    assert "'slow' (somewhere:Endless) is broken and left out: it did not end" in line


def test_a_package_adds_wires_and_broken_ones_are_named(installed: Path) -> None:
    path = os.pathsep.join([str(ROOT / "src"), str(installed)])
    done = subprocess.run(
        [sys.executable, "-u", "-c", SCRIPT],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["['later', 'lines']", '200 : "complete"}'], done.stderr
    for name, reason in (
        ("'a_missing' (lines_wire.nowhere:Wire)", "ModuleNotFoundError"),
        ("'b_wrong' (lines_wire:NOT_A_WIRE)", "builtins.int is not a wire"),
        ("'ui' (lines_wire.Lines)", "the name 'ui' of a wire is taken"),
        ("'d_raises' (lines_wire:Raises)", "the plugin is at fault"),
        ("'e_text' (lines_wire:Text)", "encode() returned str, not bytes"),
        ("'g_exits' (lines_wire.exits:Wire)", "it ended the process: SystemExit"),
        ("'other-lines' (lines_wire.Lines)", "the path '/v1/runs' of the wire"),
        ("'i_half' (lines_wire:Half)", "has no method 'encode'"),
    ):
        line = next((li for li in done.stderr.splitlines() if f"plugin {name} is" in li), "")
        assert reason in line, (name, done.stderr)
