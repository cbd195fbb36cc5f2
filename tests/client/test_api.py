"""Every call of the Python client against the real server, and what it refuses to do."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from support.server import KEY_A, KEY_B, KEYS, Site, site
from tokenwire.client import Client, Patience
from tokenwire.errors import (
    BusyError,
    ConfigError,
    ConflictError,
    CursorError,
    GoneError,
    InputError,
    KeyReusedError,
    NotAuthenticatedError,
    NotFoundError,
    ServerProtocolError,
    ServerUnavailableError,
    UnknownModelError,
)
from tokenwire.events.model import (
    ApprovalRequest,
    RunEnd,
    RunStart,
    RunWait,
    TextDelta,
    ToolCallStart,
    ToolResult,
)

QUICK = Patience(base=0.001, cap=0.002, give_up=5.0)


@pytest.fixture(scope="module")
def here() -> Iterator[Site]:
    with site() as found:
        yield found


def run_with(url: str, use: Callable[[Client], Awaitable[Any]], **settings: Any) -> Any:
    async def main() -> Any:
        async with Client(url, **{"patience": QUICK, **settings}) as client:
            return await asyncio.wait_for(use(client), 60)

    return asyncio.run(main())


def test_start_follow_text_snapshot_models(here: Site) -> None:
    async def use(client: Client) -> None:
        run = await client.start("Say hello", thread="greetings", metadata={"a": 1})
        assert (run.thread, run.model) == ("greetings", "demo")
        events = [event async for event in client.follow(run)]
        assert isinstance(events[0], RunStart)
        assert isinstance(events[-1], RunEnd)
        text = "".join(event.text for event in events if isinstance(event, TextDelta))
        assert text
        assert await client.text(run.id) == text
        snapshot = await client.snapshot(run.id)
        assert snapshot["state"] == "complete"
        info = await client.info(run.id)
        assert (info.id, info.state, info.tail) == (run.id, "complete", len(events))
        assert (info.thread, info.metadata) == ("greetings", {"a": 1})
        assert [model.id for model in await client.models()] == ["demo"]
        await client.delete(run)
        for call in (client.text, client.info, client.snapshot, client.delete):
            with pytest.raises((NotFoundError, GoneError)) as caught:
                await call(run)
            assert (
                not isinstance(caught.value, NotFoundError) or caught.value.details["what"] == "run"
            )

    run_with(here.url, use)


def test_messages_of_both_shapes(here: Site) -> None:
    from tokenwire.events.message import user

    async def use(client: Client) -> None:
        said = [{"role": "user", "content": [{"type": "text", "text": "scenario:text"}]}]
        first = await client.text(await client.start(said))
        assert await client.text(await client.start([user("scenario:text")])) == first

    run_with(here.url, use)


def test_a_key_starts_once(here: Site) -> None:
    async def use(client: Client) -> None:
        first = await client.start("hi", key="only-once")
        assert (await client.start("hi", key="only-once")).id == first.id
        with pytest.raises(KeyReusedError):
            await client.start("something else", key="only-once")
        assert (await client.start("hi")).id != first.id

    run_with(here.url, use)


@pytest.mark.parametrize("transport", ["sse", "websocket"])
def test_cancel_is_seen_by_who_reads(here: Site, transport: Any) -> None:
    async def use(client: Client) -> None:
        run = await client.start("scenario:stall")
        reader = client.follow(run)
        async for event in reader:
            if isinstance(event, TextDelta):
                break
        await client.cancel(run, reason="enough")
        rest = [event async for event in reader]
        assert isinstance(rest[-1], RunEnd)
        assert rest[-1].outcome == "cancelled"

    run_with(here.url, use, transport=transport)


def test_an_approval_and_a_tool_that_this_side_runs(here: Site) -> None:
    async def use(client: Client) -> None:
        run = await client.start("scenario:approval")
        reader = client.follow(run)
        async for event in reader:
            if isinstance(event, ApprovalRequest):
                await client.approve(run, event.approval_id, approved=True, reason="fine")
        end = await client.snapshot(run)
        assert end["state"] == "complete"

        tool = {"name": "ask_me", "parameters": {"type": "object", "properties": {}}}
        run = await client.start("please ask me", tools=[tool])
        call = ""
        results: list[Any] = []
        async for event in client.follow(run):
            if isinstance(event, ToolCallStart):
                call = event.call_id or call
            if isinstance(event, RunWait):
                await client.answer_tool(run, event.pending[0], {"answer": 42})
            if isinstance(event, ToolResult):
                results.append(event.content)
        assert call
        assert results == [{"answer": 42}]

    run_with(here.url, use)


@pytest.mark.parametrize("transport", ["sse", "websocket"])
def test_what_cannot_get_better_is_a_typed_error_at_once(here: Site, transport: Any) -> None:
    async def use(client: Client) -> None:
        cuts: list[Any] = []
        with pytest.raises(NotFoundError):
            await client.follow("a" * 22, on_cut=lambda *cut: cuts.append(cut)).text()
        run = await client.start("hi")
        await client.text(run)
        for cursor in ("2-0123456789abcdef", "99999"):
            with pytest.raises(CursorError):
                await anext(client.follow(run, after=cursor, on_cut=lambda *c: cuts.append(c)))
        with pytest.raises(ConflictError):
            await client.follow(run, after="2").text()
        assert not cuts
        with pytest.raises(UnknownModelError):
            await client.start("hi", model="nosuch")
        with pytest.raises(InputError):
            await client.start("hi", no_such_option=1)

    run_with(here.url, use, transport=transport)


@pytest.mark.parametrize("transport", ["sse", "websocket"])
def test_keys_and_foreign_runs(transport: Any) -> None:
    with site(api_keys=KEYS) as here:

        async def as_a(client: Client) -> str:
            run = await client.start("hi")
            assert await client.text(run)
            return run.id

        run = run_with(here.url, as_a, api_key=KEY_A, transport=transport)
        cuts: list[Any] = []

        async def read(client: Client) -> str:
            return await client.follow(run, on_cut=lambda *cut: cuts.append(cut)).text()

        with pytest.raises(NotFoundError):
            run_with(here.url, read, api_key=KEY_B, transport=transport)
        with pytest.raises(NotAuthenticatedError):
            run_with(here.url, read, api_key="wrong", transport=transport)
        with pytest.raises(NotAuthenticatedError):
            run_with(here.url, read, transport=transport)
        assert not cuts


def test_a_reader_is_used_by_one_task(here: Site) -> None:
    async def use(client: Client) -> None:
        run = await client.start("scenario:stall")
        reader = client.follow(run)
        async for event in reader:
            if isinstance(event, TextDelta):
                break
        waiting = asyncio.ensure_future(anext(reader))
        await asyncio.sleep(0)
        with pytest.raises(ConflictError):
            await anext(reader)
        # Closed from here: who waits is told that there is no more.
        await reader.aclose()
        with pytest.raises(StopAsyncIteration):
            await waiting
        await client.cancel(run)

    run_with(here.url, use)


@pytest.mark.parametrize(
    "run", ["", "../x", "a" * 15, "a" * 65, "a/b" + "a" * 20, "ä" * 20, "a\n" * 9]
)
def test_run_ids_are_checked_before_they_are_part_of_a_url(run: str) -> None:
    async def use(client: Client) -> None:
        with pytest.raises(InputError):
            client.follow(run)
        with pytest.raises(InputError):
            await client.snapshot(run)
        for name in ("", "..", "a/b", "a?b", "a b", "a\r\nb"):
            with pytest.raises(InputError):
                await client.approve("a" * 22, name)

    run_with("http://127.0.0.1:9", use)


@pytest.mark.parametrize(
    ("url", "key"),
    [
        ("ftp://x", None),
        ("127.0.0.1:8765", None),
        ("http://me:pw@127.0.0.1", None),
        ("http://127.0.0.1/?a=1", None),
        ("http://127.0.0.1/\r\nx: y", None),
        ("http://127.0.0.1", "two words"),
        ("http://127.0.0.1", "line\nend"),
    ],
)
def test_addresses_and_keys_that_are_refused(url: str, key: str | None) -> None:
    with pytest.raises(ConfigError):
        Client(url, api_key=key)


# --- servers that answer as they are told --------------------------------------------------------

HEAD = b"HTTP/1.1 %d X\r\ncontent-length: %d\r\n%bconnection: close\r\n\r\n%b"
STREAM = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n"


def answer(status: int, body: bytes = b"", *headers: bytes) -> bytes:
    return HEAD % (status, len(body), b"".join(h + b"\r\n" for h in headers), body)


def events(*frames: tuple[str, bytes]) -> bytes:
    return b"".join(
        (b"id: %b\n" % cursor.encode() if cursor else b"") + b"data: %b\n\n" % data
        for cursor, data in frames
    )


@contextmanager
def saying(*answers: bytes) -> Iterator[tuple[str, list[bytes]]]:
    """A server that gives each connection the next of ``answers``, then closes it."""
    asked: list[bytes] = []
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        for data in answers:
            wire, _ = listener.accept()
            with wire:
                asked.append(wire.recv(65536))
                wire.sendall(data)
                wire.shutdown(socket.SHUT_WR)
                while wire.recv(65536):
                    pass

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}", asked
        thread.join(30)
    finally:
        listener.close()


RUN = "abcdefghijklmnop"
START = b'{"type":"run-start","run":"abcdefghijklmnop","seq":1}'
TEXT = b'{"type":"text-start","part":0,"seq":2}'
END = b'{"type":"run-end","outcome":"complete","seq":3}'


async def seen(client: Client) -> list[str]:
    return [type(event).__name__ async for event in client.follow(RUN)]


@pytest.mark.parametrize("transport", ["sse", "websocket"])
@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_a_redirect_is_not_followed(status: int, transport: Any) -> None:
    with saying(b"") as (elsewhere, asked_elsewhere):
        place = elsewhere if transport == "sse" else elsewhere.replace("http", "ws")
        with saying(answer(status, b"", b"location: " + place.encode())) as (url, asked):
            with pytest.raises(ServerProtocolError, match="redirect"):
                run_with(url, seen, api_key="the-secret-key", transport=transport)
            assert b"the-secret-key" in asked[0]
        assert not asked_elsewhere
        socket.create_connection(("127.0.0.1", int(elsewhere.rpartition(":")[2]))).close()


def test_passing_failures_are_waited_out_as_the_server_asks() -> None:
    body = b'{"error":{"code":"busy","message":"later"}}'
    page = b"<h1>Bad gateway</h1>"
    answers = [
        answer(429, body, b"retry-after: 0"),
        answer(502, page),
        answer(200, page, b"content-type: text/html"),
        STREAM + events(("1", START), ("2", TEXT)),
        STREAM + events(("3", END)),
    ]
    with saying(*answers) as (url, asked):
        assert run_with(url, seen) == ["RunStart", "TextStart", "RunEnd"]
    assert b"last-event-id" not in asked[3]
    assert b"last-event-id: 2\r\n" in asked[4]


def test_a_long_retry_after_is_more_than_patience() -> None:
    with saying(answer(503, b'{"error":{"code":"busy","message":"x"}}', b"retry-after: 99")) as (
        url,
        _,
    ):
        with pytest.raises(BusyError) as caught:
            run_with(url, seen)
        assert caught.value.details["retry_after"] == 99


def test_a_farewell_is_followed_and_not_shown() -> None:
    bye = b'{"type":"reconnect","after_ms":1,"reason":"drain"}'
    told: list[Any] = []

    async def use(client: Client) -> list[str]:
        reader = client.follow(RUN, on_cut=lambda error, wait: told.append(error))
        return [type(event).__name__ async for event in reader]

    answers = [STREAM + events(("1", START), ("", bye)), STREAM + events(("2", TEXT), ("3", END))]
    with saying(*answers) as (url, _):
        assert run_with(url, use) == ["RunStart", "TextStart", "RunEnd"]
    assert told == [None]


def test_what_a_newer_server_says_of_the_connection_is_dropped() -> None:
    news = b'{"type":"log-reset","reason":"rolled back"}'
    whole = [("1", START), ("", news), ("2", TEXT), ("", news), ("3", END)]
    with saying(STREAM + events(*whole)) as (url, _):
        assert run_with(url, seen) == ["RunStart", "TextStart", "RunEnd"]


def test_a_log_with_an_event_that_nobody_knows_any_more_is_read() -> None:
    old = b'{"type":"log-reset","reason":"rolled back","seq":2}'
    whole = [("1", START), ("2", old), ("3", TEXT), ("4", END)]
    with saying(STREAM + events(*whole)) as (url, _):
        assert run_with(url, seen) == ["RunStart", "Unknown", "TextStart", "RunEnd"]


def test_known_events_are_dropped_and_missing_ones_are_an_error() -> None:
    twice = STREAM + events(("1", START), ("1", START), ("2", TEXT), ("1", START), ("3", END))
    with saying(twice) as (url, _):
        assert run_with(url, seen) == ["RunStart", "TextStart", "RunEnd"]

    async def use(client: Client) -> None:
        reader = client.follow(RUN)
        assert isinstance(await anext(reader), RunStart)  # what came before is given first
        with pytest.raises(ServerProtocolError, match="missing"):
            await anext(reader)

    hole = events(("3", END))
    with saying(STREAM + events(("1", START)) + hole, STREAM + hole) as (url, asked):
        run_with(url, use)
    assert b"last-event-id: 1\r\n" in asked[1]


def test_a_reader_that_was_busy_elsewhere_is_not_out_of_patience() -> None:
    async def use(client: Client) -> list[str]:
        names: list[str] = []
        async for event in client.follow(RUN):
            names.append(type(event).__name__)
            await asyncio.sleep(0.06)  # longer than the patience: time is what is tested
        return names

    answers = [STREAM + events(("1", START)), STREAM + events(("2", TEXT), ("3", END))]
    with saying(*answers) as (url, _):
        names = run_with(url, use, patience=Patience(base=0.001, cap=0.002, give_up=0.05))
    assert names == ["RunStart", "TextStart", "RunEnd"]


def test_silence_is_a_cut() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        silent: list[socket.socket] = []

        def serve() -> None:
            while True:  # a busy machine may be taken for silence as well
                wire, _ = listener.accept()
                silent.append(wire)
                head = wire.recv(65536).lower()
                at = int(head.partition(b"last-event-id: ")[2].partition(b"\r\n")[0] or 0)
                wire.sendall(STREAM + events((str(at + 1), (START, TEXT, END)[at])))
                if at == 2:
                    return

        server = threading.Thread(target=serve, daemon=True)
        server.start()
        deaf = Patience(base=0.001, cap=0.002, silence=0.05)
        assert run_with(url, seen, patience=deaf) == ["RunStart", "TextStart", "RunEnd"]
        server.join(30)
        assert len(silent) >= 3
        for wire in silent:
            wire.close()


@pytest.mark.parametrize(
    "junk", [b"data: nonsense\n\n", b"data: []\n\n", b'id: x\ndata: {"type":"a"}\n\n']
)
def test_what_is_no_event_twice_ends_it(junk: bytes) -> None:
    with saying(STREAM + junk, STREAM + junk) as (url, _):
        with pytest.raises(ServerProtocolError):
            run_with(url, seen)


def test_what_the_line_broke_once_is_asked_for_again() -> None:
    broken = STREAM + events(("1", START), ("2", TEXT.replace(b":", b"\xff", 1)))
    with saying(broken, STREAM + events(("2", TEXT), ("3", END))) as (url, asked):
        assert run_with(url, seen) == ["RunStart", "TextStart", "RunEnd"]
    assert b"last-event-id: 1\r\n" in asked[1]


def test_nobody_there() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # nobody else may listen there, and nobody does
        port = taken.getsockname()[1]
        for transport in ("sse", "websocket"):
            with pytest.raises(
                ServerUnavailableError, match=r"cannot connect to http://.*: connection refused"
            ):
                run_with(
                    f"http://127.0.0.1:{port}",
                    seen,
                    transport=transport,
                    patience=Patience(base=0.01, cap=0.01, give_up=0.05),
                )
