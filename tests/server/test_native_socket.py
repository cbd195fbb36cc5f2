"""``/ws``: many runs over one socket, and what a socket may not do."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections.abc import Iterator
from typing import Any

import pytest
import websockets
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from support.server import AS_B, KEY_A, KEYS, Site, site, text_of
from tokenwire.errors import StoreUnavailableError

NUMBERS = "".join(f"{n} " for n in range(1, 91))


@pytest.fixture(scope="module")
def here() -> Iterator[Site]:
    with site() as found:
        yield found


def address(here: Site) -> str:
    return here.url.replace("http", "ws", 1) + "/ws"


class Talk:
    """A socket whose messages are sorted by run."""

    def __init__(self, wire: ClientConnection) -> None:
        self.wire = wire
        self.events: dict[str, list[tuple[str, dict]]] = {}
        self.said: list[dict] = []

    async def say(self, **message: Any) -> None:
        await self.wire.send(json.dumps(message))

    async def until(self, op: str, **fields: Any) -> dict:
        """The next message of this kind; events on the way are kept."""
        async with asyncio.timeout(40):
            while True:
                message = json.loads(await self.wire.recv())
                if message["op"] == "events":
                    kept = self.events.setdefault(message["run"], [])
                    kept += [(e["cursor"], e["event"]) for e in message["events"]]
                else:
                    self.said.append(message)
                if message["op"] == op and fields.items() <= message.items():
                    return message

    async def reply(self, op: str, **fields: Any) -> dict:
        """The same where it may have come already: a reply and the run's events are in no order."""
        early = (m for m in self.said if m["op"] == op and fields.items() <= m.items())
        return next(early, None) or await self.until(op, **fields)

    def text(self, run: str) -> str:
        return "".join(e["text"] for _, e in self.events[run] if e["type"] == "text-delta")


def talk(here: Site, body: Any, **more: Any) -> None:
    async def main() -> None:
        async with connect(address(here), proxy=None, **more) as wire:
            await body(Talk(wire))

    asyncio.run(main())


def test_two_runs_over_one_socket_are_the_same_as_over_sse(here: Site) -> None:
    found: dict[str, list] = {}

    async def body(t: Talk) -> None:
        await t.say(op="start", id=1, request={"prompt": "scenario:slow"})
        await t.say(op="start", id=2, request={"prompt": "scenario:text"})
        first = (await t.until("started", id=1))["run"]["id"]
        second = (await t.until("started", id=2))["run"]["id"]
        ended: set[str] = set()
        while ended != {first, second}:
            ended.add((await t.until("end"))["run"])
        assert t.text(first) == NUMBERS
        found.update(t.events)

    talk(here, body)
    for run, events in found.items():
        frames = here.frames(f"/v1/runs/{run}/events")
        assert [(f.id, json.loads(f.data)) for f in frames] == events


def test_following_from_a_cursor_and_leaving_and_coming_back(here: Site) -> None:
    run = here.start("scenario:reasoning")
    frames = here.frames(f"/v1/runs/{run}/events")

    async def body(t: Talk) -> None:
        await t.say(op="follow", id="f", run=run, after=frames[9].id)
        await t.until("end", run=run)
        assert [cursor for cursor, _ in t.events[run]] == [f.id for f in frames[10:]]
        t.events.clear()
        await t.say(op="follow", run=run)
        await t.until("end", run=run)
        assert [cursor for cursor, _ in t.events[run]] == [f.id for f in frames]
        await t.say(op="follow", id="bad", run=run, after="7-0000000000000000")
        error = await t.until("error", id="bad")
        assert error["error"]["code"] == "bad_cursor"
        await t.say(op="follow", id="none", run="a" * 22)
        assert (await t.until("error", id="none"))["error"]["code"] == "unknown_run"

    talk(here, body)


def test_cancel_and_approve_over_the_socket(here: Site) -> None:
    async def body(t: Talk) -> None:
        await t.say(op="start", id=1, request={"prompt": "scenario:stall"})
        run = (await t.until("started", id=1))["run"]["id"]
        await t.say(op="cancel", id=2, run=run, reason="enough")
        await t.until("end", run=run)
        assert t.events[run][-1][1]["outcome"] == "cancelled"
        await t.say(op="start", id=3, request={"prompt": "scenario:approval"})
        other = (await t.until("started", id=3))["run"]["id"]
        while not any(e["type"] == "run-wait" for _, e in t.events.get(other, [])):
            await t.until("events", run=other)
        asked = next(e for _, e in t.events[other] if e["type"] == "approval-request")
        await t.say(op="approve", id=4, run=other, approval_id=asked["approval_id"], approved=True)
        await t.until("end", run=other)
        assert t.events[other][-1][1]["outcome"] == "complete"
        await t.reply("ok", id=4)

    talk(here, body)


@pytest.mark.parametrize(
    ("message", "code"),
    [
        ("{", "bad_request"),
        ("[]", "bad_request"),
        ('{"op":"fly"}', "bad_request"),
        *(
            (f'{{"op":{op}}}', "bad_request")
            for op in ("[]", "{}", "[1]", "1", "null", "true", "1e400")
        ),
        ('{"op":"start","id":[],"request":{}}', "bad_request"),
        ('{"op":"auth","key":"x"}', "bad_request"),
        ('{"op":"start"}', "bad_request"),
        ('{"op":"start","request":{"prompt":"x","base_url":"y"}}', "bad_request"),
        ('{"op":"start","request":{"prompt":"x","model":"y"}}', "unknown_model"),
        ('{"op":"follow"}', "bad_request"),
        ('{"op":"ping","op":"ping"}', "bad_request"),
        ("[" * 60_000, "bad_request"),
        ('{"op":"cancel","run":"../../x"}', "unknown_run"),
    ],
)
def test_a_bad_message_is_an_error_and_the_socket_lives(
    here: Site, message: str, code: str
) -> None:
    async def body(t: Talk) -> None:
        await t.wire.send(message)
        assert (await t.until("error"))["error"]["code"] == code
        await t.say(op="ping", id="p")
        await t.until("pong", id="p")

    talk(here, body)


def test_s22_a_message_over_64_kib_closes_with_1009(here: Site) -> None:
    async def body(t: Talk) -> None:
        start = '{"op":"ping","id":"'
        await t.wire.send(start + "x" * ((64 << 10) - len(start) - 2) + '"}')
        await t.until("pong")
        with pytest.raises(ConnectionClosed):
            await t.wire.send("x" * ((64 << 10) + 1))
            await t.until("pong")
        assert t.wire.close_code == 1009
        assert "exceeds limit of 65536 bytes" in (t.wire.close_reason or "")

    talk(here, body)


def test_s22_too_many_fragments_close_with_1009(here: Site) -> None:
    async def pieces() -> Any:
        for _ in range(200):
            yield "x"

    async def body(t: Talk) -> None:
        with pytest.raises(ConnectionClosed):
            await t.wire.send(pieces())
            await t.until("error")
        assert t.wire.close_code == 1009

    talk(here, body)


def test_s22_no_compression_is_agreed(here: Site) -> None:
    async def body(t: Talk) -> None:
        assert t.wire.response is not None
        assert "sec-websocket-extensions" not in t.wire.response.headers

    talk(here, body, compression="deflate")


@pytest.mark.parametrize("origin", ["http://evil.test", "null", "http://localhost.evil.test"])
def test_s4_a_page_of_another_site_gets_no_socket(here: Site, origin: str) -> None:
    async def body(t: Talk) -> None:
        raise AssertionError("connected")

    with pytest.raises(InvalidStatus) as caught:
        talk(here, body, origin=websockets.Origin(origin))
    assert caught.value.response.status_code == 403


def test_s2_a_foreign_host_gets_no_socket(here: Site) -> None:
    answer = here.raw(
        b"GET /ws HTTP/1.1\r\nHost: evil.test\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )
    assert answer.startswith(b"HTTP/1.1 421")


def test_s7_s22_a_key_is_needed_within_the_first_message() -> None:
    with site(api_keys=KEYS) as here:
        run = here.start("scenario:stall", headers=AS_B)

        async def with_first_message(t: Talk) -> None:
            await t.say(op="auth", id=0, key=KEY_A)
            await t.until("ok", id=0)
            await t.say(op="follow", id=1, run=run)
            assert (await t.until("error", id=1))["error"]["code"] == "unknown_run"
            await t.say(op="cancel", id=2, run=run)
            assert (await t.until("error", id=2))["error"]["code"] == "unknown_run"

        talk(here, with_first_message)
        # Cookies of other applications of this host, and a session that has ended, change nothing.
        cookies = {"cookie": "theme=dark; tokenwire_session=AAAA; tokenwire_session_0=BBBB"}
        talk(here, with_first_message, additional_headers=cookies)
        signed_in = here.client.post("/v1/session", json={"key": KEY_A})
        here.client.cookies.clear()
        cookie = signed_in.headers["set-cookie"].partition(";")[0]
        origin = {"cookie": cookie, "origin": here.url}
        assert here.client.delete("/v1/session", headers=origin).status_code == 204
        talk(here, with_first_message, additional_headers=origin)

        async def refused(t: Talk) -> None:
            await t.say(op="auth", key="wrong-wrong-wrong-wrong")
            with pytest.raises(ConnectionClosed):
                while True:
                    await t.until("never")
            assert t.wire.close_code == 1008

        talk(here, refused)

        async def by_header(t: Talk) -> None:
            await t.say(op="ping", id=1)
            await t.until("pong", id=1)

        talk(here, by_header, additional_headers={"authorization": f"Bearer {KEY_A}"})
        with pytest.raises(InvalidStatus) as caught:
            talk(here, by_header, additional_headers={"authorization": "Bearer no-such-key-here"})
        assert caught.value.response.status_code == 401
        here.client.post(f"/v1/runs/{run}/cancel", headers=AS_B)


def test_at_its_age_a_socket_is_asked_to_come_back_with_its_cursors() -> None:
    with site(max_age=0.5) as here:
        run = here.start("scenario:slow")

        async def body(t: Talk) -> None:
            await t.say(op="follow", run=run)
            farewell = await t.until("reconnect")
            assert farewell["reason"] == "max_age"
            assert farewell["offsets"] == {run: t.events[run][-1][0]}
            with pytest.raises(ConnectionClosed):
                await t.until("never")
            assert t.wire.close_code == 1012

        talk(here, body)
        assert NUMBERS.startswith(text_of(here.frames(f"/v1/runs/{run}/events")))


def test_a_store_that_fails_is_told_to_the_reader(monkeypatch: pytest.MonkeyPatch) -> None:
    with site() as here:
        run = here.start("scenario:slow")

        async def unavailable(*_: Any, **__: Any) -> Any:
            raise StoreUnavailableError("the store does not answer")

        async def body(t: Talk) -> None:
            await t.say(op="follow", run=run)
            await t.until("events")
            monkeypatch.setattr(here.app.state.runs.store, "read", unavailable)
            told = await t.until("error", run=run)
            assert told["error"]["code"] == "store_unavailable"
            await t.say(op="ping", id=7)
            await t.until("pong", id=7)

        talk(here, body)


class RawSocket:
    """A socket by hand: it answers no ping and reads what it is told to."""

    def __init__(self, here: Site, **said: Any) -> None:
        self.wire = socket.socket()
        self.wire.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        self.wire.settimeout(40)
        self.wire.connect(("127.0.0.1", here.port))
        self.wire.sendall(
            b"GET /ws HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n"
        )
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += self.wire.recv(1)
        assert b" 101 " in head
        if said:
            self.send(0x1, json.dumps(said).encode())

    def send(self, opcode: int, data: bytes) -> None:
        """One short frame, under a mask of zeros."""
        self.wire.sendall(bytes([0x80 | opcode, 0x80 | len(data), 0, 0, 0, 0]) + data)

    def frames(self) -> Iterator[tuple[int, bytes]]:
        """Opcode and content of each frame, to the end of the connection."""
        with self.wire, self.wire.makefile("rb") as file:
            while head := file.read(2):
                size = head[1] & 0x7F
                if size > 125:
                    size = int.from_bytes(file.read(2 if size == 126 else 8), "big")
                yield head[0] & 0xF, file.read(size)


def events_of(frames: list[tuple[int, bytes]]) -> list[tuple[str, dict]]:
    told = [json.loads(data) for opcode, data in frames if opcode == 0x1]
    return [(e["cursor"], e["event"]) for m in told for e in m.get("events", [])]


def test_a_socket_that_does_not_read_is_let_go_and_told_its_cursor() -> None:
    with site(write_deadline=0.4, socket_buffer=4096) as here:
        run = here.start("scenario:long")
        path = f"/v1/runs/{run}/events"
        whole = [(f.id, json.loads(f.data)) for f in here.frames(path)]
        raw = RawSocket(here, op="follow", run=run)
        connections = here.app.state.connections
        while not len(connections):
            time.sleep(0.01)
        end = time.monotonic() + 40
        while len(connections) and time.monotonic() < end:
            time.sleep(0.02)
        assert not len(connections)
        *frames, (opcode, close) = raw.frames()
        assert (opcode, int.from_bytes(close[:2], "big")) == (0x8, 1013)
        word, told = close[2:].decode().split(" ")
        assert (word, told.split("=")[0]) == ("slow_reader", run)
        # It came as far as it was told, and the rest is there.
        got = events_of(frames)
        assert got[-1][0] == told.split("=")[1]
        rest = here.frames(f"{path}?after={got[-1][0]}")
        assert got + [(f.id, json.loads(f.data)) for f in rest] == whole


def test_a_slow_socket_gets_fewer_and_larger_messages() -> None:
    with site(socket_buffer=4096) as here:
        quick = RawSocket(here, op="start", request={"prompt": "scenario:long?rate=20000"})
        found: dict[str, list[tuple[int, bytes]]] = {"quick": [], "slow": []}
        slow: RawSocket | None = None
        for frame in quick.frames():
            told = json.loads(frame[1])
            if slow is None:
                slow = RawSocket(here, op="follow", run=told["run"]["id"])
            found["quick"].append(frame)
            if told["op"] == "end":
                break
        assert slow is not None
        for frame in slow.frames():  # until now it has read nothing
            found["slow"].append(frame)
            if b'"op":"end"' in frame[1]:
                break
        assert len(found["slow"]) < len(found["quick"])
        assert events_of(found["slow"]) == events_of(found["quick"])
        assert max(len(data) for _, data in found["slow"]) <= 64 << 10


def test_a_socket_is_pinged_and_closed_when_it_stops_to_answer() -> None:
    with site(ping=1.0) as here:
        pings = 0
        raw = RawSocket(here, op="ping", id=1)
        for opcode, data in raw.frames():
            if opcode == 0x9:
                pings += 1
                if pings == 1:  # as long as it answers, it stays
                    raw.send(0xA, data)
            elif opcode == 0x8:
                assert int.from_bytes(data[:2], "big") == 1011
        assert pings == 2


def test_a_clients_tool_is_answered_over_the_socket(here: Site) -> None:
    async def body(t: Talk) -> None:
        schema = {"type": "object", "properties": {"thing": {"type": "string"}}}
        tool = {"name": "locate", "description": "Where is it", "parameters": schema}
        request = {"prompt": "Please locate the cat.", "tools": [tool]}
        await t.say(op="start", id=1, request=request)
        run = (await t.until("started", id=1))["run"]["id"]
        while not any(e["type"] == "run-wait" for _, e in t.events.get(run, [])):
            await t.until("events", run=run)
        call = next(e for _, e in t.events[run] if e["type"] == "tool-call-start")["call_id"]
        await t.say(op="tool", id=2, run=run, call_id="no-such-call", content="x")
        assert "no such tool call" in (await t.until("error", id=2))["error"]["message"]
        await t.say(op="tool", id=3, run=run, call_id=call, content="in the garden")
        await t.until("end", run=run)
        await t.reply("ok", id=3, run=run)
        assert "garden" in t.text(run)
        await t.say(op="tool", id=4, run=run, call_id=call, content="elsewhere")
        assert (await t.until("error", id=4))["error"]["code"] == "conflict"

    talk(here, body)


def test_one_socket_answers_what_another_one_waits_for(here: Site) -> None:
    async def asker(t: Talk) -> None:
        await t.say(op="start", id=1, request={"prompt": "scenario:approval"})
        run = (await t.until("started", id=1))["run"]["id"]
        while not any(e["type"] == "run-wait" for _, e in t.events.get(run, [])):
            await t.until("events", run=run)
        asked = next(e for _, e in t.events[run] if e["type"] == "approval-request")
        async with connect(address(here), proxy=None) as wire:
            other = Talk(wire)
            answer = {"op": "approve", "run": run, "approval_id": asked["approval_id"]}
            await other.say(id=2, approved=False, reason="not this file", **answer)
            await other.until("ok", id=2)
            await other.say(id=3, approved=True, **answer)
            assert (await other.until("error", id=3))["error"]["code"] == "conflict"
        await t.until("end", run=run)
        told = next(e for _, e in t.events[run] if e["type"] == "approval-answer")
        assert (told["approved"], told["reason"]) == (False, "not this file")

    talk(here, asker)


def test_a_turn_that_waits_is_told(here: Site) -> None:
    async def body(t: Talk) -> None:
        await t.say(op="start", id=1, request={"prompt": "scenario:stall", "thread": "line"})
        busy = (await t.until("started", id=1))["run"]["id"]
        request = {"prompt": "next", "thread": "line", "while_busy": "queue"}
        await t.say(op="start", id=2, request=request)
        waits = await t.until("queued", id=2)
        assert waits["position"] == 1
        await t.say(op="start", id=3, request={**request, "while_busy": "steer"})
        steers = await t.until("queued", id=3)
        assert steers["steers"] == busy
        await t.say(op="cancel", id=4, run=busy)
        await t.until("ok", id=4)

    talk(here, body)
