"""A reader's bytes, however its records come: those of the encoder for each event, one by one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from support.event_strategies import runs
from tokenwire.errors import InputError
from tokenwire.events import model as m
from tokenwire.events.codec import decode
from tokenwire.relay.follow import Batch
from tokenwire.relay.record import Chain, cursor_of
from tokenwire.server.edge.encoding.batches import BatchEncoder
from tokenwire.wire.ag_ui.encoder import AGUIEncoder
from tokenwire.wire.ag_ui.tanstack import AGUILinesEncoder
from tokenwire.wire.ai_sdk.encoder import UIMessageEncoder
from tokenwire.wire.anthropic.encoder import AnthropicEncoder
from tokenwire.wire.catalogue import EVERY_WAIT
from tokenwire.wire.native import NativeEncoder
from tokenwire.wire.openai.chat import OpenAIChatEncoder
from tokenwire.wire.openai.responses import OpenAIResponsesEncoder
from tokenwire.wire.place import Place
from tokenwire.wire.token_sse import TokenEncoder

RUN = "run-1234567890abcdef"
TOOLS = frozenset(f"tool_{n}" for n in range(100))
HISTORY = [{"id": "u1", "role": "user", "content": "hi"}]
#: Names that look like the marks with which an encoder finds the places of text and cursor.
MARKED = "~text~"


def ui(compat: Any) -> Callable[..., Any]:
    return lambda place=None: UIMessageEncoder(compat=compat, resolved_ids=EVERY_WAIT, place=place)


def ag_ui(**options: Any) -> Callable[..., Any]:
    return lambda place=None: AGUIEncoder(resolved_ids=EVERY_WAIT, place=place, **options)


def lines(**options: Any) -> Callable[..., Any]:
    return lambda place=None: AGUILinesEncoder(resolved_ids=EVERY_WAIT, place=place, **options)


WIRES: dict[str, Callable[..., Any]] = {
    "native": lambda place=None: NativeEncoder(),
    "token": lambda place=None: TokenEncoder(RUN),
    "ui-5": ui("5"),
    "ui": ui("common"),
    "ui-6": ui("6"),
    "ui-7": ui("7"),
    "ag-ui": ag_ui(),
    "ag-ui with history": ag_ui(history=HISTORY),
    "ag-ui with odd names": ag_ui(run_id=MARKED, thread_id="~cursor-a~"),
    "tanstack": ag_ui(tanstack=True, history=HISTORY),
    "lines": lines(history=HISTORY),
    "lines with odd names": lines(run_id="~cursor-a~", thread_id="~cursor-b~"),
    "tanstack lines": lines(tanstack=True),
    "chat": lambda place=None: OpenAIChatEncoder(include_usage=True, tools=TOOLS, place=place),
    "chat without tools": lambda place=None: OpenAIChatEncoder(place=place),
    "anthropic": lambda place=None: AnthropicEncoder(tools=TOOLS, place=place),
    "responses": lambda place=None: OpenAIResponsesEncoder(tools=TOOLS, place=place),
    "responses after 9": lambda place=None: OpenAIResponsesEncoder(tools=TOOLS, starting_after=9),
}


def records_of(events: list[Any]) -> list[bytes]:
    return Chain(RUN).seal_all(events)


def one_by_one(encoder: Any, events: list[Any], records: list[bytes], skip: int) -> list[bytes]:
    """What each event gives without any of what is tested here."""
    pieces, reopened = [], skip == 0
    for offset, (event, record) in enumerate(zip(events, records, strict=True), 1):
        if offset <= skip and not encoder.stateless:
            encoder.skip(event)
            pieces.append(b"")
            continue
        piece = b""
        if not reopened:
            reopened, piece = True, encoder.reopen()
        pieces.append(piece + encoder.encode(event, cursor_of(offset, record)))
    return [*pieces, encoder.finish()]


def in_batches(
    encoder: Any, records: list[bytes], skip: int, cuts: list[int], how: list[int]
) -> tuple[bytes, list[bytes], int]:
    """The same bytes by `BatchEncoder`: all; those of each cut; and how many texts were taken as
    they stand in their records."""
    batches, taken = BatchEncoder(encoder, skip, None), 0
    learns = batches._learns

    class Counting:
        def steady(self, delta: Any) -> Any:
            assert learns is not None
            steady = learns.steady(delta)
            if steady is None:
                return None
            take = steady.take

            def counted(text: bytes, count: int) -> None:
                nonlocal taken
                taken += count
                take(text, count)

            steady.take = counted
            return steady

    if learns is not None:
        batches._learns = Counting()  # type: ignore[assignment]
    ends = sorted({*cuts, len(records)})
    pieces = []
    for number, (start, end) in enumerate(zip([0, *ends], ends, strict=False)):
        if end <= start:
            continue
        batch = Batch(start + 1, records[start:end])
        way = how[number % len(how)]
        if way == 0 or end == start + 1:
            each = [batches.encode_one(n, r) for n, r in enumerate(batch.records, batch.first)]
            pieces.append(b"".join(each))
        elif way == 1:
            pieces.append(batches.encode(batch))
        else:
            pieces.append(b"".join(batches.pieces(batch)))
    pieces.append(encoder.finish())
    return b"".join(pieces), pieces, taken


def wordy(events: list[Any], words: list[str]) -> list[Any]:
    """The same run with more deltas after each, so that some are alike."""
    longer: list[Any] = []
    sizes: dict[int, int] = {}
    for event in events:
        longer.append(event)
        if isinstance(event, m.PartDelta) and not isinstance(event, m.ToolCallDelta):
            more = [type(event)(part=event.part, text=word) for word in words]
            longer += more
            sizes[event.part] = sizes.get(event.part, 0) + len("".join(words).encode())
        elif isinstance(event, m.PartEnd) and event.part in sizes:
            event.size += sizes[event.part]
    return [copy_of(event, number) for number, event in enumerate(longer, 1)]


def copy_of(event: Any, number: int) -> Any:
    event.seq, event.t = number, number * 10
    return event


WORDS = st.lists(
    st.one_of(
        st.sampled_from(
            ["word", "", '"', "\\", "\n", "a\r\nb", "\x00", "é𝄞", "\x7f", '","seq":', "{"]
        ),
        st.text(st.characters(exclude_categories=["Cs"]), max_size=5),
    ),
    max_size=6,
)


@pytest.mark.parametrize("wire", WIRES)
@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(runs(), WORDS, st.data())
def test_any_run_in_any_batches_from_any_place(wire, events, words, data):
    events = wordy(events, words)
    records, make = records_of(events), WIRES[wire]
    skip = data.draw(st.sampled_from([0, 0, data.draw(st.integers(1, len(events)))]))
    cuts = data.draw(st.lists(st.integers(1, len(events)), max_size=len(events)))
    how = data.draw(st.lists(st.integers(0, 2), min_size=1, max_size=5))
    place = None
    if skip and skip < len(events) and data.draw(st.booleans()):
        # (The reader has some frames of the first event that it does not skip.)
        place = Place(cursor=str(skip + 1), offset=skip + 1, frames=data.draw(st.integers(0, 1)))
    if make().stateless:
        skip = 0
    expected = one_by_one(make(place=place), events, records, skip)
    whole, pieces, _ = in_batches(make(place=place), records, skip, cuts, how)
    assert whole == b"".join(expected)
    at = 0
    ends = sorted({*cuts, len(records)})
    for piece, end in zip(pieces, ends, strict=False):
        assert piece == b"".join(expected[at:end])
        at = end


def plain(count: int = 20, *, kind: str = "text") -> list[Any]:
    starts = {
        "text": m.TextStart(part=0),
        "reasoning": m.ReasoningStart(part=0),
        "refusal": m.RefusalStart(part=0),
        "tool-call": m.ToolCallStart(part=0, call_id="c1", name="tool_1"),
    }
    deltas = {
        "text": m.TextDelta,
        "reasoning": m.ReasoningDelta,
        "refusal": m.RefusalDelta,
        "tool-call": m.ToolCallDelta,
    }
    ends = {
        "text": m.TextEnd(part=0),
        "reasoning": m.ReasoningEnd(part=0),
        "refusal": m.RefusalEnd(part=0),
        "tool-call": m.ToolCallEnd(part=0),
    }
    events = [
        m.RunStart(run=RUN, time=1_700_000_000_000, model="demo"),
        m.StepStart(step=1, provider="x"),
        starts[kind],
        *(deltas[kind](part=0, text=f' w{n}"\n' if n % 4 == 3 else f" w{n}") for n in range(count)),
        ends[kind],
        m.StepEnd(step=1, status="complete", terminal_seen=True),
        m.RunEnd(outcome="complete"),
    ]
    return [copy_of(event, number) for number, event in enumerate(events, 1)]


#: What needs no decoding, by wire; the others show no such parts, or cannot.
STEADY = {
    wire: {"text", "reasoning", "refusal", "tool-call"}
    for wire in WIRES
    if wire not in ("native", "ag-ui with odd names")
} | {"token": {"text", "refusal"}, "chat without tools": {"text", "reasoning", "refusal"}}


@pytest.mark.parametrize("kind", ["text", "reasoning", "refusal", "tool-call"])
@pytest.mark.parametrize("wire", STEADY)
def test_alike_deltas_are_not_decoded(wire, kind):
    events, make = plain(kind=kind), WIRES[wire]
    records = records_of(events)
    for skip in (0, 2, 3, 4, 5, 10, 22, 23, 24):
        expected = b"".join(one_by_one(make(), events, records, skip))
        whole, _, taken = in_batches(make(), records, skip, list(range(1, 40)), [0])
        assert whole == expected
        if kind in STEADY[wire]:
            assert taken >= 10, skip
        else:
            assert taken == 0


@pytest.mark.parametrize(
    "odd",
    [
        b'{"type":"text-delta","part":0,"text":"a","seq":9,"t":9,"x":{"a":"b","seq":1}}',
        b'{"type":"text-delta","part":0,"text":"a","new":"b","seq":9,"t":9}',
        b'{"type":"text-delta","part":0,"text":"a\\\\n","new":"b","seq":9,"t":9}',
        b'{"type":"text-delta","part":0,"text":"a\\"","new":"b","seq":9,"t":9}',
        b'{"type":"text-delta","part":0,"text":"\\u0041","seq":9,"t":9}',
        b'{"type":"text-delta","part":0,"text":"a\\/","seq":9,"t":9}',
        b'{"type":"text-delta","part":0,"text":"","seq":9,"t":9}',
        b'{"type":"text-delta","part":0,"text":"a"}',
        b'{"type":"text-delta","part":0,"text":"a","seq":9}',
        b'{"type":"text-delta","part":0, "text":"a","seq":9,"t":9}',
        b'{"type":"text-delta","part":01,"text":"a","seq":9,"t":9}',
        b'{"type":"text-delta","part":1,"text":"a","seq":9,"t":9}',
        b'{"type":"refusal-delta","part":0,"text":"a","seq":9,"t":9}',
        b'{"type":"text-delta","part":0,"text":5,"seq":9,"t":9}',
        b'{"type":"text-delta","part":0,"text":null,"seq":9,"t":9}',
    ],
)
@pytest.mark.parametrize("wire", STEADY)
def test_a_record_that_only_looks_alike_is_decoded(wire, odd):
    """Also what a newer release may write."""

    events = plain(20)
    records = records_of(events)
    records[6] = records[6][:16] + odd
    try:
        events[6] = decode(odd)
    except InputError:
        with pytest.raises(InputError):
            in_batches(WIRES[wire](), records, 0, list(range(1, 40)), [0])
        return
    expected = b"".join(one_by_one(WIRES[wire](), events, records, 0))
    whole, _, taken = in_batches(WIRES[wire](), records, 0, list(range(1, 40)), [0])
    assert whole == expected
    assert taken >= 1
