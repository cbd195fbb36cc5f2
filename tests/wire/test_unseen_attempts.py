"""An attempt of which nobody saw anything, in a later step: no wire loses a word for it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tokenwire.events.codec import AnyEvent, decode
from tokenwire.framing.sse import SSEDecoder
from tokenwire.wire.catalogue import WIRES

Case = list[dict[str, Any]]

RUN = "Zx81Zx81Zx81Zx81Zx81Zx"
MODEL = {"provider": "anthropic", "dialect": "anthropic", "model": "claude"}


def text(part: int, step: int, words: str) -> Case:
    return [
        {"type": "text-start", "part": part, "step": step},
        {"type": "text-delta", "part": part, "text": words},
        {"type": "text-end", "part": part, "status": "complete", "size": len(words)},
    ]


def ends(step: int, reason: str) -> Case:
    return [
        {"type": "finish", "reason": reason, "raw": reason},
        {"type": "step-end", "step": step, "status": "complete", "terminal_seen": True},
    ]


#: A step with words and a call of a tool that the server runs, and the beginning of the next one.
BEFORE: Case = [
    {"type": "run-start", "run": RUN, "time": 1795000000000, "thread": "c", "model": "demo"},
    {"type": "step-start", "step": 1, **MODEL},
    *text(0, 1, "I look."),
    {"type": "tool-call-start", "part": 1, "step": 1, "call_id": "c1", "name": "look"},
    {"type": "tool-call-delta", "part": 1, "text": "{}"},
    {"type": "tool-call-end", "part": 1, "status": "complete", "arguments": {}},
    *ends(1, "tool_calls"),
    {"type": "tool-start", "call_id": "c1", "name": "look"},
    {"type": "tool-result", "call_id": "c1", "content": "seen"},
    {"type": "step-start", "step": 2, **MODEL},
]
AFTER: Case = [
    *text(3, 2, "It is done."),
    *ends(2, "stop"),
    {"type": "run-end", "outcome": "complete", "reason": "stop"},
]


def again(reason: str, *discard: int) -> Case:
    more = {"discard_parts": list(discard)} if discard else {}
    return [
        {"type": "step-reset", "step": 2, "attempt": 2, "reason": reason, **more},
        {"type": "step-start", "step": 2, "attempt": 2, **MODEL},
    ]


BILLED: Case = [
    {"type": "response-start", "id": "m", "model": "claude"},
    {"type": "usage", "input_tokens": 25, "output_tokens": 1},
]
THOUGHTS: Case = [{"type": "reasoning-start", "part": 2, "step": 2}]


def chunks(wire: str, case: Case, *, skip: int = 0) -> list[Any]:
    """What a client receives that has the first ``skip`` events, without ids and counts."""
    encoder = WIRES[wire](None)
    data = b""
    for seq, fields in enumerate(case, 1):
        event: AnyEvent = decode(json.dumps({**fields, "seq": seq, "t": 1}).encode())
        if seq <= skip:
            encoder.skip(event)
        else:
            data += (encoder.reopen() if skip and seq == skip + 1 else b"") + encoder.encode(
                event, f"{seq}-{seq:016x}"
            )
    decoder = SSEDecoder()
    frames = decoder.feed(data + encoder.finish())
    return [plain(json.loads(f.text)) for f in frames if f.text and f.text != "[DONE]"]


def plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: plain(v) for k, v in value.items() if k not in ("usage", "metadata", "cursor")}
    return [plain(item) for item in value] if isinstance(value, list) else value


@pytest.mark.parametrize("wire", WIRES)
@pytest.mark.parametrize(
    "unseen",
    [
        [*BILLED, *again("retry")],
        [*BILLED, *again("fallback")],
        again("refused"),
        again("restart"),
        [*BILLED, *again("retry"), *BILLED, *again("fallback")],
    ],
    ids=["retry", "fallback", "refused", "restart", "twice"],
)
def test_what_nobody_saw_is_missed_by_nobody(wire: str, unseen: Case) -> None:
    case = [*BEFORE, *unseen, *AFTER]
    expected, found = chunks(wire, [*BEFORE, *AFTER]), chunks(wire, case)
    missed = [chunk for chunk in expected if chunk not in found]
    assert missed == []
    assert "It is done." in json.dumps(found)
    assert "error" not in {chunk.get("type") for chunk in found if isinstance(chunk, dict)}
    if wire in ("openai-chat", "openai-responses", "anthropic"):  # these have no word for it
        assert found == expected
    for skip in range(len(BEFORE), len(BEFORE) + len(unseen) + 1):
        rest = chunks(wire, case, skip=skip)
        assert "It is done." in json.dumps(rest)


@pytest.mark.parametrize(
    ("wire", "end"),
    [
        ("openai-chat", "step_reset"),
        ("openai-responses", "response.failed"),
        ("anthropic", "api_error"),
    ],
)
def test_words_that_cannot_be_taken_back_are_void(wire: str, end: str) -> None:
    """Words of this step, or of one before that the reset names."""
    for shown, discard in ((text(2, 2, "Well"), (2,)), (text(2, 2, "Well"), ()), ([], (0, 1))):
        case = [*BEFORE, *shown, *again("restart", *discard), *AFTER]
        last = chunks(wire, case)[-1]
        assert end in json.dumps(last)
        assert "It is done." not in json.dumps(last)


def test_thoughts_that_a_wire_does_not_show_are_unseen() -> None:
    case = [*BEFORE, *THOUGHTS, *again("restart", 2), *AFTER]
    assert "It is done." in json.dumps(chunks("anthropic", case))
    assert "step_reset" not in json.dumps(chunks("openai-chat", case))


@pytest.mark.parametrize("wire", ["ui", "ui-5", "ui-6", "ui-7"])
@pytest.mark.parametrize("skip", [0, len(BEFORE), len(BEFORE) + 2])
def test_the_start_of_a_step_is_told_once_for_attempts_that_nobody_saw(wire: str, skip: int):
    case = [*BEFORE, *again("retry"), *BILLED, *again("fallback"), *AFTER]
    types = [chunk["type"] for chunk in chunks(wire, case, skip=skip)]
    assert types.count("start-step") == (0 if skip else 2)
    assert types.count("finish-step") == (1 if skip else 2)
    # One that was seen begins again.
    seen = text(2, 2, "It was")[:2]
    case = [*BEFORE, *seen, *again("retry", 2), *again("retry"), *AFTER]
    types = [chunk["type"] for chunk in chunks(wire, case)]
    assert types.count("start-step") == 3
