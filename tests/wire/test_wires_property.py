"""Every wire: any valid run, cut anywhere, resumed, ends in the same message."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from support.a2a_reader import A2AReader
from support.event_strategies import runs
from support.langgraph_reader import LangGraphReader
from support.wire_readers import (
    AGUIReader,
    AnthropicReader,
    ChatReader,
    LinesReader,
    Reader,
    ResponsesReader,
    UIReader,
    ui_view,
)
from tokenwire.events.fold import fold
from tokenwire.events.model import Event, StepReset, ToolCallStart
from tokenwire.wire.a2a.encoder import A2AEncoder
from tokenwire.wire.ag_ui.encoder import AGUIEncoder
from tokenwire.wire.ag_ui.tanstack import AGUILinesEncoder
from tokenwire.wire.ai_sdk.encoder import UIMessageEncoder
from tokenwire.wire.anthropic.encoder import AnthropicEncoder
from tokenwire.wire.failure import fold_ending
from tokenwire.wire.langgraph.encoder import LangGraphEncoder
from tokenwire.wire.langgraph.messages import wire_messages
from tokenwire.wire.langgraph.state import failure_of_fold
from tokenwire.wire.openai.chat import OpenAIChatEncoder
from tokenwire.wire.openai.responses import OpenAIResponsesEncoder
from tokenwire.wire.place import split_cursor


class Everything:
    """Holds whatever is asked: every wait has its answer."""

    def __contains__(self, name: object) -> bool:
        return True


ALL = Everything()
NAMES = frozenset(f"tool_{n}" for n in range(100))
HISTORY: list[dict[str, Any]] = [{"id": "u1", "role": "user", "content": "hi"}]


def cursor_of(event: Event) -> str:
    return f"{event.seq}-{event.seq:016x}"


def everything(encoder: Any, events: list[Event]) -> bytes:
    return b"".join(encoder.encode(e, cursor_of(e)) for e in events) + encoder.finish()


def resumed(make: Callable[..., Any], events: list[Event], last_id: str) -> bytes:
    """What a server sends to a reader that comes back with ``last_id``."""
    place = split_cursor(last_id)
    assert place is not None
    encoder = make(place=place)
    after = int(place.after.partition("-")[0])
    for event in events[:after]:
        encoder.skip(event)
    again = encoder.reopen()
    return again + everything(encoder, events[after:])


def ui(compat: Any) -> Callable[..., Any]:
    return lambda place=None: UIMessageEncoder(compat=compat, resolved_ids=ALL, place=place)


def ag_ui(place: Any = None) -> AGUIEncoder:
    return AGUIEncoder(resolved_ids=ALL, history=HISTORY, place=place)


def tanstack(place: Any = None) -> AGUIEncoder:
    return AGUIEncoder(resolved_ids=ALL, history=HISTORY, tanstack=True, place=place)


def lines(place: Any = None) -> AGUILinesEncoder:
    return AGUILinesEncoder(resolved_ids=ALL, history=HISTORY, tanstack=True, place=place)


def chat(place: Any = None) -> OpenAIChatEncoder:
    return OpenAIChatEncoder(include_usage=True, tools=NAMES, place=place)


def anthropic(place: Any = None) -> AnthropicEncoder:
    return AnthropicEncoder(tools=NAMES, place=place)


def a2a(place: Any = None) -> A2AEncoder:
    return A2AEncoder(resolved_ids=ALL, place=place)


def langgraph(place: Any = None) -> LangGraphEncoder:
    modes = ("values", "messages-tuple", "updates", "custom", "tools")
    return LangGraphEncoder(modes=modes, history=[], subgraphs=True, goes_on=True, place=place)


def responses(place: Any = None) -> OpenAIResponsesEncoder:
    return OpenAIResponsesEncoder(tools=NAMES)


WIRES: dict[str, tuple[Callable[..., Any], Callable[[], Reader], bool]] = {
    "ui-5": (ui("5"), UIReader, False),
    "ui-common": (ui("common"), UIReader, False),
    "ui-6": (ui("6"), UIReader, False),
    "ui-7": (ui("7"), UIReader, False),
    "ag-ui": (ag_ui, lambda: AGUIReader(HISTORY), False),
    "tanstack": (tanstack, lambda: AGUIReader(HISTORY), True),
    "tanstack-lines": (lines, lambda: LinesReader(HISTORY), True),
    "chat": (chat, ChatReader, True),
    "anthropic": (anthropic, AnthropicReader, False),
    "a2a": (a2a, A2AReader, False),
    "langgraph": (langgraph, LangGraphReader, True),
}
relaxed = settings(max_examples=120, suppress_health_check=list(HealthCheck), derandomize=True)


def reconnect(reader: Reader, continuous: bool) -> None:
    if continuous:
        reader.decoder = type(reader.decoder)()
    else:
        reader.connect()


@pytest.mark.parametrize("wire", WIRES)
@relaxed
@given(data=st.data(), events=runs())
def test_cut_anywhere_resume_same_message(wire: str, data: Any, events: list[Event]) -> None:
    make, new_reader, continuous = WIRES[wire]
    whole = everything(make(), events)
    calm = new_reader()
    calm.feed(whole)
    assert calm.ended, "no terminal"

    cut = data.draw(st.integers(0, len(whole)))
    reader = new_reader()
    reader.feed(whole[:cut])
    cuts = 0
    while not reader.ended and cuts < 4:
        cuts += 1
        if not reader.last_id:
            reader = new_reader()
            reader.feed(whole)
            break
        rest = resumed(make, events, reader.last_id)
        reconnect(reader, continuous)
        stop = data.draw(st.integers(0, len(rest))) if cuts < 3 else len(rest)
        reader.feed(rest[:stop])
    assert reader.ended
    assert (reader.view(), reader.end) == (calm.view(), calm.end)  # type: ignore[attr-defined]
    assert reader.facts() == calm.facts()


@relaxed
@given(events=runs())
@pytest.mark.parametrize("compat", ["common", "6", "7"])
def test_the_ui_message_is_the_fold(compat: Any, events: list[Event]) -> None:
    reader = UIReader()
    reader.feed(everything(ui(compat)(), events))
    state = fold(events)
    assert reader.view() == ui_view(state)
    assert reader.closed
    facts = reader.facts()
    assert facts.get("state") == state.shared
    assert facts.get("progress") == state.progress
    assert facts.get("budget") == state.budget
    tasks = {f"step-{s.step}": (s.name, s.status) for s in state.steps if s.kind == "task"}
    assert {k: (v["name"], v["status"]) for k, v in facts.items() if k in tasks} == tasks


@relaxed
@given(events=runs())
def test_ag_ui_text_arguments_and_results_are_the_fold(events: list[Event]) -> None:
    reader = AGUIReader(HISTORY)
    reader.feed(everything(ag_ui(), events))
    state = fold(events)
    kept = [state.parts[p] for s in state.steps for p in s.parts]
    text, calls, results = reader.view()
    assert text == "".join(p.text for p in kept if p.kind in ("text", "refusal"))
    assert {k: v for k, (_, v) in calls.items()} == {
        p.attrs["call_id"]: p.text for p in kept if p.kind == "tool-call"
    }
    assert set(results) == {k for k, t in state.tools.items() if t.done}
    assert reader.state == state.shared


@relaxed
@given(data=st.data(), events=runs())
def test_responses_continue_after_any_sequence_number(data: Any, events: list[Event]) -> None:
    whole = everything(responses(), events)
    calm = ResponsesReader()
    calm.feed(whole)
    assert calm.ended
    reader = ResponsesReader()
    reader.feed(whole[: data.draw(st.integers(0, len(whole)))])
    if not reader.ended:
        reader.connect()
        encoder = OpenAIResponsesEncoder(tools=NAMES, starting_after=reader.sequence)
        reader.feed(everything(encoder, events))
    assert (reader.view(), reader.end) == (calm.view(), calm.end)
    if calm.end == "completed":
        assert calm.response["output"] == calm.items


@relaxed
@given(events=runs())
def test_all_wires_tell_the_same_run(events: list[Event]) -> None:
    """Without resets (some wires cannot say them): same text and arguments everywhere."""
    if any(isinstance(e, StepReset) for e in events):
        return
    readers: dict[str, Any] = {}
    for wire, (make, new_reader, _) in WIRES.items():
        readers[wire] = new_reader()
        readers[wire].feed(everything(make(), events))
    responses_reader = ResponsesReader()
    responses_reader.feed(everything(responses(), events))
    state = fold(events)
    kept = [state.parts[p] for s in state.steps for p in s.parts]
    everyone = "".join(p.text for p in kept if p.kind in ("text", "refusal"))
    kept = [p for p in kept if p.is_answer or p.kind == "tool-call"]
    text = "".join(p.text for p in kept if p.kind == "text")
    both = "".join(p.text for p in kept if p.kind in ("text", "refusal"))
    calls = {p.attrs["call_id"]: p.text for p in kept if p.kind == "tool-call"}
    assert readers["ag-ui"].view()[0] == readers["tanstack"].view()[0] == everyone
    assert readers["tanstack-lines"].view() == readers["tanstack"].view()
    assert readers["chat"].fields["content"] == text
    assert {c["id"]: c["args"] for c in readers["chat"].calls} == calls
    assert readers["anthropic"].view()[1] == calls
    assert readers["a2a"].text() == text
    assert readers["langgraph"].text() == both
    said = [i for i in responses_reader.items if i["type"] == "message"]
    parts = [p for i in said for p in i["content"]]
    assert "".join(p.get("text", p.get("refusal", "")) for p in parts) == both
    assert any(isinstance(e, ToolCallStart) for e in events) == bool(calls)


@relaxed
@given(events=runs())
def test_the_a2a_task_is_the_stream_and_only_a_whole_answer_is_completed(
    events: list[Event],
) -> None:
    """What is polled is what was streamed, wherever one looks."""
    stream, polled = A2AEncoder(resolved_ids=ALL), A2AEncoder(keeps=True, resolved_ids=ALL)
    reader = A2AReader()
    for event in events:
        reader.feed(stream.encode(event, cursor_of(event)))
        polled.skip(event)
        if reader.task is None:
            continue
        task = polled.task()
        assert task["status"] == reader.status
        again = A2AReader()
        again.feed(stream.frame({"task": task}, "1-a"))
        assert again.view() == reader.view()
    state = fold(events)
    if reader.end == "COMPLETED":
        assert fold_ending(state) == "complete"
        kept = [state.parts[p] for s in state.steps for p in s.parts]
        assert reader.text() == "".join(p.text for p in kept if p.kind == "text" and p.is_answer)


@relaxed
@given(events=runs())
def test_langgraph_messages_and_values_are_the_fold(events: list[Event]) -> None:
    """What was streamed piece by piece is what the values say, under the same ids."""
    reader = LangGraphReader()
    reader.feed(everything(langgraph(), events))
    state = fold(events)
    said = reader.said()
    for name, message in reader.messages.items():
        if not message["path"]:  # two texts that are open at once come in turns
            assert sorted(said[name]) == sorted(message["text"]), name
    shown = [m for m in reader.values["messages"] if m["type"] == "ai"]
    assert [m["content"] for m in shown] == [
        m["content"] for m in wire_messages(state.history(), state.run) if m["type"] == "ai"
    ]
    kept = [state.parts[p] for s in state.steps for p in s.parts]
    calls = {p.attrs["call_id"]: p.text for p in kept if p.kind == "tool-call"}
    assert reader.calls() == calls
    assert (reader.end == "end") == (failure_of_fold(state) is None)
    if fold_ending(state) == "complete":
        assert reader.end == "end"


@relaxed
@given(data=st.data(), events=runs())
def test_langgraph_readers_may_resume_in_other_modes(data: Any, events: list[Event]) -> None:
    """A frame's place does not depend on the modes: none is lost or comes twice in any of them."""
    frames = everything(langgraph(), events).split(b"\n\n")[:-1]
    cut = data.draw(st.integers(0, len(frames) - 1))
    last = next(line for line in frames[cut].split(b"\n") if line.startswith(b"id: "))[4:]

    def only(place: Any = None) -> LangGraphEncoder:
        modes = ("messages-tuple",)
        return LangGraphEncoder(modes=modes, history=[], subgraphs=True, goes_on=True, place=place)

    rest = resumed(only, events, last.decode())
    kinds = (b"event: messages", b"event: metadata", b"event: end", b"event: error")
    due = [f for f in frames[cut + 1 :] if any(kind in f for kind in kinds)]
    assert rest == b"".join(frame + b"\n\n" for frame in due)
