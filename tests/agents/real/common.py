"""What the tests of all frameworks share: the simulator as their model, and a run to its end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import tokenwire
from support.wire_readers import (
    AGUIReader,
    AnthropicReader,
    ChatReader,
    ResponsesReader,
    UIReader,
)
from tokenwire import Runs, open_store
from tokenwire.agents.load import agents_of
from tokenwire.events import model as m
from tokenwire.events.fold import Fold, fold
from tokenwire.events.message import (
    FilePart,
    Message,
    TextPart,
    ToolCallPart,
    ToolResultPart,
    user,
)
from tokenwire.events.order import Order
from tokenwire.events.request import Request
from tokenwire.simulator.app import start_demo
from tokenwire.wire.catalogue import encoder_for
from tokenwire.wire.openai.responses import OpenAIResponsesEncoder

#: Every wire with a reader of it, and whether a reader that comes back goes on in one message.
_WIRES: dict[str, tuple[Callable[[], Any], bool]] = {
    "ui-5": (UIReader, False),
    "ui-6": (UIReader, False),
    "ui-7": (UIReader, False),
    "ag-ui": (AGUIReader, False),
    "tanstack": (AGUIReader, True),
    "openai-chat": (ChatReader, True),
    "anthropic": (AnthropicReader, False),
}


@asynccontextmanager
async def simulator() -> AsyncIterator[str]:
    """The simulator's base URL."""
    server = await start_demo()
    try:
        yield f"{server.url}/v1"
    finally:
        await server.aclose()


async def events_of(
    agent: Any, prompt: str, on: Callable[[Any, Any], None] | None = None
) -> list[Any]:
    """All events of one run, checked; ``on`` gets the run and each event."""
    async with tokenwire.stream(prompt, model=agent) as run:
        events = []
        async for event in run:
            events.append(event)
            if on is not None:
                on(run, event)
    order = Order()
    for event in events:
        order.check(event)
    assert order.state == "ended"
    cut_everywhere(events)
    return events


def cut_everywhere(events: list[Any]) -> None:
    """Cut after every event and resume: the reader ends with the same message, on every wire."""
    cuts = range(1, len(events), max(1, len(events) // 40))
    for wire, (new_reader, continuous) in _WIRES.items():
        calm = new_reader()
        calm.feed(said(encoder_for(wire), events, 0))
        assert calm.ended, wire
        for cut in cuts:
            reader, encoder = new_reader(), encoder_for(wire)
            for event in events[:cut]:
                reader.feed(encoder.encode(event, f"{event.seq}-{event.seq:016x}"))
            if reader.ended:
                continue
            if continuous:
                reader.decoder = type(reader.decoder)()
            else:
                reader.connect()
            reader.feed(said(encoder_for(wire), events, cut))
            assert (reader.view(), reader.end) == (calm.view(), calm.end), (wire, cut)
    cut_responses(events, cuts)


def cut_responses(events: list[Any], cuts: range) -> None:
    """The same over OpenAI's Responses, whose readers come back with a sequence number."""
    calm = ResponsesReader()
    calm.feed(said(OpenAIResponsesEncoder(), events, 0))
    assert calm.ended
    for cut in cuts:
        reader, encoder = ResponsesReader(), OpenAIResponsesEncoder()
        for event in events[:cut]:
            reader.feed(encoder.encode(event, f"{event.seq}-{event.seq:016x}"))
        if reader.ended:
            continue
        reader.connect()
        reader.feed(said(OpenAIResponsesEncoder(starting_after=reader.sequence), events, 0))
        assert (reader.view(), reader.end) == (calm.view(), calm.end), cut


def said(encoder: Any, events: list[Any], seen: int) -> bytes:
    """The bytes for a reader that has ``seen`` events."""
    for event in events[:seen]:
        encoder.skip(event)
    again = encoder.reopen() if seen else b""
    rest = [encoder.encode(event, f"{event.seq}-{event.seq:016x}") for event in events[seen:]]
    return b"".join([again, *rest, encoder.finish()])


async def state_of(agent: Any, prompt: str, on: Any = None) -> Fold:
    return fold(await events_of(agent, prompt, on))


def kinds(events: list[Any]) -> list[str]:
    """Types of the events, without deltas."""
    return [e.type for e in events if not isinstance(e, m.PartDelta)]


def approve(approved: bool, arguments: Any = None) -> Callable[[Any, Any], None]:
    """Answer every approval in this way."""

    def on(run: Any, event: Any) -> None:
        if isinstance(event, m.RunWait):
            for approval in event.pending:
                run.approve(approval, approved, arguments=arguments, reason="because")

    return on


@asynccontextmanager
async def worker(path: Path, agent: Any, number: int) -> AsyncIterator[Runs]:
    runs = Runs(
        open_store(f"sqlite:{path / 'runs.db'}"),
        agents=agents_of([agent]),
        lease=0.4,
        leave_for=0.5,
        owner=f"elsewhere:{number}:x",
    )
    await runs.open()
    try:
        yield runs
    finally:
        await runs.aclose()


async def read(runs: Runs, run: str, until: type | None = None) -> list[Any]:
    events: list[Any] = []
    follower = await runs.follow(run)
    async with asyncio.timeout(60):
        while (batch := await follower.next()) is not None:
            for _, event in batch.events():
                events.append(event)
                if until is not None and isinstance(event, until):
                    follower.close()
                    return events
    follower.close()
    return events


async def over_a_restart(
    path: Path, make: Callable[[], Any], prompt: str, *, approved: bool
) -> Fold:
    """Start, wait for the approval, let the worker die, answer, read what the next one makes."""
    async with worker(path, make(), 1) as first:
        name = next(iter(first.worker.agents))
        request = Request(messages=[user(prompt)])
        info = await first.start(request, model=name)
        approval = (await read(first, info.id, m.RunWait))[-1].pending[0]
        assert first._tender is not None
        first._tender.cancel()
        for owned in list(first.owned.values()):
            owned.task.cancel()
        first.owned.clear()
        async with worker(path, make(), 2) as second:
            await second.approve(info.id, approval, approved=approved)
            return fold(await read(second, info.id))


#: One point, as a PNG.
_PIXEL = (
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5E"
    "rkJggg=="
)
#: A picture and a document, as they are in a conversation.
PICTURE = FilePart(media_type="image/png", data=_PIXEL, name="cat.png")
PAPER = FilePart(media_type="application/pdf", data="JVBERi0xLjQ=", name="cats.pdf")


def conversation() -> list[Message]:
    """A conversation that has all that a framework must get: an earlier call with its result, an
    earlier picture, and a question with a document."""
    call = ToolCallPart(call_id="call_7", name="get_weather", arguments='{"city": "Oslo"}')
    result = ToolResultPart(call_id="call_7", content={"sky": "snowy"})
    return [
        Message(role="user", content=[TextPart(text="What is it?"), PICTURE]),
        Message(role="assistant", content=[TextPart(text="I look."), call]),
        Message(role="tool", content=[result]),
        Message(role="assistant", content="A cat in the snow."),
        Message(role="user", content=[TextPart(text="And who is in there?"), PAPER]),
    ]


async def sent_for(make: Callable[[str], Any], messages: list[Message]) -> tuple[list[str], Any]:
    """The bodies that a framework sent to its model for ``messages`` (which answers with an error),
    and the end of the run. ``make`` gets the model's URL."""
    bodies: list[str] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
        if "chunked" in head:
            body = b""
            while size := int(await reader.readline(), 16):
                body += await reader.readexactly(size)
                await reader.readline()
        else:
            length = head.partition("content-length:")[2].split("\r\n")[0]
            body = await reader.readexactly(int(length or 0))
        bodies.append(body.decode())
        refusal = b'{"error": {"message": "no", "type": "invalid_request_error"}}'
        writer.write(b"HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\n")
        writer.write(b"connection: close\r\ncontent-length: %d\r\n\r\n" % len(refusal) + refusal)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        agent = make(f"http://127.0.0.1:{port}/v1")
        async with tokenwire.stream(messages, model=agent) as run:
            events = [event async for event in run]
    return bodies, events


async def check_sent(make: Callable[[str], Any], *more: str) -> None:
    """The framework's model gets all of `conversation`, in order; ``more``: what else it gets."""
    bodies, _ = await sent_for(make, conversation())
    body = next(b for b in bodies if "who is in there" in b).replace("\\", "")
    # The two alphabets of base64 have the first characters in common.
    order = ["What is it?", _PIXEL[:40], "Oslo", "snowy", "A cat in the snow."]
    order.append("who is in there?")
    places = [body.index(text, body.index("What is it?")) for text in order]
    assert places == sorted(places), list(zip(order, places, strict=True))
    assert str(PAPER.data) in body
    for text in ("get_weather", *more):
        assert text in body


async def check_instructed(make: Callable[[str], Any]) -> None:
    """Every turn begins with the agent's own instructions, which are "Speak as a pirate.", once,
    whatever was said before and whatever the caller says as the system."""
    system = Message(role="system", content="Speak as a lawyer.")
    question = [user("Is it day?")]
    for messages in (question, [system, *question], conversation(), [system, *conversation()]):
        bodies, _ = await sent_for(make, messages)
        body = next(b for b in bodies if "Is it day?" in b or "who is in there?" in b)
        assert body.count("Speak as a pirate.") == 1, (len(messages), body)
        assert body.count("Speak as a lawyer.") == (1 if messages[0] is system else 0)


async def check_refused(make: Callable[[str], Any], part: FilePart, message: str) -> None:
    """A file that the framework cannot take ends the run, and no model is asked."""
    question = Message(role="user", content=[TextPart(text="Look."), part])
    bodies, events = await sent_for(make, [question])
    error = next(e for e in events if isinstance(e, m.Error))
    assert (events[-1].outcome, error.code) == ("error", "bad_request"), error
    assert message in error.message
    assert bodies == []
