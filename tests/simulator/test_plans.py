"""Any plan of faults, on any wire: our decoders answer with events and typed errors, no more."""

import json

from hypothesis import given, settings
from hypothesis import strategies as st

from tokenwire.errors import TokenwireError
from tokenwire.events.fold import fold
from tokenwire.providers.registry import Registry
from tokenwire.simulator.answering import prepare, reply
from tokenwire.simulator.faults import FAULTS
from tokenwire.simulator.play import Identity
from tokenwire.simulator.playback import Send
from tokenwire.simulator.settings import Settings
from tokenwire.simulator.wires.anthropic import Anthropic
from tokenwire.simulator.wires.gemini import Gemini
from tokenwire.simulator.wires.ollama import Ollama
from tokenwire.simulator.wires.openai_chat import OpenAIChat
from tokenwire.simulator.wires.openai_completions import OpenAICompletions
from tokenwire.simulator.wires.openai_responses import OpenAIResponses

REGISTRY = Registry()
WIRES = {
    "openai-chat": (OpenAIChat(), {}),
    "openai-responses": (OpenAIResponses(), {}),
    "anthropic": (Anthropic(), {}),
    "gemini": (Gemini(), {"alt": "sse"}),
    "gemini-array": (Gemini(), {}),
    "ollama": (Ollama(), {}),
    "ollama-generate": (Ollama(generate=True), {}),
    "completions": (OpenAICompletions(), {}),
}
BREAKS = ("stall", "cut-end", "cut-fin", "cut-rst", "no-terminal", "no-finish")
HARMLESS = ("split", "comments", "crlf", "bom", "no-space", "no-last-newline")
SCENARIOS = ("text", "reasoning", "tools", "error", "refusal", "length", "empty", "markdown-attack")


def plans(kinds):
    fault = st.tuples(st.sampled_from(kinds), st.none() | st.integers(0, 3000))
    text = fault.map(lambda pair: pair[0] if pair[1] is None else f"{pair[0]}@{pair[1]}")
    return st.lists(text, max_size=4).map(",".join)


def body_of(prompt):
    return {
        "model": "demo",
        "stream": True,
        "max_tokens": 100_000,
        "prompt": prompt,
        "input": prompt,
        "messages": [{"role": "user", "content": prompt}],
        "contents": [{"role": "user", "parts": [{"text": prompt}]}],
    }


def pieces_of(name, prompt, plan):
    wire, query = WIRES[name]
    path = "/v1beta/models/demo:streamGenerateContent"
    prepared = prepare(wire, body_of(prompt), path, query, Settings(), Identity(0, 1, 0), plan)
    answer = reply(prepared, Settings(), 1)
    return answer, [action.data for action in answer.actions if isinstance(action, Send)]


def decode(name, prompt, plan):
    answer, pieces = pieces_of(name, prompt, plan)
    dialect = REGISTRY.dialect(name.removesuffix("-array").removesuffix("-generate"))
    if answer.status != 200:
        assert dialect.error(answer.status, answer.headers, b"".join(pieces)).code
        return None, None
    decoder = dialect.decoder(content_type=answer.headers["content-type"])
    events, failure = [], None
    try:
        for piece in pieces:
            events += decoder.feed(piece)
    except TokenwireError as error:
        failure = error
    events += decoder.finish()
    return fold(events), failure


def text_of(state):
    return "".join(part.text for part in state.parts.values() if part.kind == "text")


@settings(max_examples=150)
@given(st.sampled_from(sorted(WIRES)), st.sampled_from(SCENARIOS), plans(sorted(FAULTS)))
def test_nothing_but_events_and_typed_errors(name, scenario, plan):
    state, _ = decode(name, f"scenario:{scenario}", plan)
    if state is not None:
        assert all(part.status != "open" for part in state.parts.values())
        assert len(state.steps) == 1


@settings(max_examples=100)
@given(st.sampled_from(sorted(WIRES)), plans(HARMLESS), plans(BREAKS))
def test_what_a_break_leaves_is_a_beginning_and_never_a_success(name, harmless, breaks):
    whole, _ = decode(name, "scenario:markdown-attack", "")
    state, failure = decode(name, "scenario:markdown-attack", f"{harmless},{breaks}")
    assert text_of(whole).startswith(text_of(state))
    if state.steps[0].terminal_seen and failure is None:
        assert text_of(state) == text_of(whole)


@given(st.sampled_from(sorted(WIRES)), plans(sorted(FAULTS)))
@settings(max_examples=50)
def test_the_same_plan_breaks_the_same_way(name, plan):
    (first, one), (again, two) = (pieces_of(name, "hello", plan) for _ in range(2))
    assert (first.status, first.headers, one) == (again.status, again.headers, two)


def test_the_whole_bodies_are_json():
    for name, (wire, query) in WIRES.items():
        body = {**body_of("scenario:text"), "stream": False}
        path = "/v1beta/models/demo:generateContent"
        prepared = prepare(wire, body, path, query, Settings(), Identity(0, 1, 0))
        (answer,) = [a.data for a in reply(prepared, Settings(), 1).actions if isinstance(a, Send)]
        assert isinstance(json.loads(answer), dict), name
