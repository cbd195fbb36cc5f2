"""Scripts are values: the same question and seed give the same answer."""

import json
import random
import re

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokenwire.simulator import samples
from tokenwire.simulator.instances import instance
from tokenwire.simulator.pace import Pace, Schedule
from tokenwire.simulator.play import Identity, Usage, play, trim
from tokenwire.simulator.scenarios import SCENARIOS, script_for
from tokenwire.simulator.script import (
    Ask,
    Call,
    Cut,
    Fail,
    PaceHint,
    Reason,
    Refuse,
    Say,
    Stall,
    ToolResult,
    ToolSpec,
    Turn,
    pieces,
)
from tokenwire.simulator.wires.openai_chat import OpenAIChat

CITY = ToolSpec("get_weather", {"properties": {"city": {"type": "string"}}, "required": ["city"]})


def ask(prompt, **more):
    return Ask(model="demo", turns=[Turn("user", prompt)], **more)


def said(script):
    return "".join(step.text for step in script.steps if isinstance(step, Say))


@given(st.text())
def test_pieces_joined_are_the_text(text):
    assert "".join(pieces(text)) == text


@given(st.text(), st.integers(0, 3))
def test_any_prompt_gets_the_same_answer_again(prompt, seed):
    first, again = script_for(ask(prompt), seed), script_for(ask(prompt), seed)
    assert first == again
    assert first.steps


def test_slow_takes_two_to_five_seconds_whatever_the_settings_say():
    for rate in (0.0, 1.0, 10_000.0):
        for seed in range(20):
            script = script_for(ask("scenario:slow"), seed)
            schedule = Schedule(Pace(rate=rate, ttft=9).with_hint(script.pace), seed)
            writer = OpenAIChat().writer(ask("scenario:slow"), Identity(0, 0, 0))
            total = sum(chunk.delay for chunk in play(writer, script, schedule, Usage(1)))
            assert 2 <= total <= 5
            assert said(script) == "".join(f"{n} " for n in range(1, 91))


def test_long_does_not_take_for_ever_unless_told_to():
    hint = script_for(ask("scenario:long"), 0).pace
    assert [Pace(rate=rate).with_hint(hint).rate for rate in (0, 40, 9000)] == [0, 2500, 9000]
    slowed = script_for(ask("scenario:long?rate=50"), 0).pace
    assert Pace(rate=40).with_hint(slowed).rate == 50


def test_scenarios_keep_their_promise():
    def steps(name, **more):
        return script_for(ask(f"scenario:{name}", **more), 0).steps

    assert [type(step) for step in steps("reasoning")] == [Reason, Say]
    assert [(s.name, s.arguments) for s in steps("tool")] == [("get_weather", {"city": "Paris"})]
    assert [s.name for s in steps("tools") if isinstance(s, Call)] == ["clock", "calculator"]
    assert [s.name for s in steps("progress") if isinstance(s, Call)] == ["slow_task"]
    approval = [s for s in steps("approval") if isinstance(s, Call)]
    assert [(s.name, s.arguments) for s in approval] == [("delete_file", {"path": "report.txt"})]
    assert [type(step) for step in steps("error")] == [Say, Fail]
    assert isinstance(steps("stall")[-1], Stall)
    assert isinstance(steps("cut")[-1], Cut)
    assert [type(step) for step in steps("refusal")] == [Refuse]
    assert steps("empty") == []
    assert len(steps("long")[0].text.split()) == 50_000
    assert len(steps("burst")[0].parts) == 10_000
    assert 9_900_000 < len(steps("big")[0].text.encode()) < 11_000_000
    assert script_for(ask("scenario:length"), 0).finish == "length"
    assert script_for(ask("scenario:filter"), 0).finish == "content_filter"
    for wanted in ("👩‍💻", "```python", "| Chinese |", "你好", "مرحبا", "# A simulated"):
        assert wanted in samples.MARKDOWN
    for wanted in ("<script>", "javascript:", "![remote]", "[reference]: "):
        assert wanted in samples.HOSTILE_MARKDOWN


@pytest.mark.parametrize("name", sorted(SCENARIOS))
def test_every_scenario_is_described_and_deterministic(name):
    assert re.fullmatch(r".{10,80}", SCENARIOS[name].summary)
    assert script_for(ask(f"scenario:{name}"), 3) == script_for(ask(f"scenario:{name}"), 3)
    assert script_for(ask(f"scenario:{name}"), 3).name


def test_options_of_a_scenario():
    script = script_for(ask("scenario:text?rate=5&ttft=0.5&faults=cut-rst@9,bom please"), 0)
    assert script.pace == PaceHint(rate=5.0, ttft=0.5)
    assert script.faults == "cut-rst@9,bom"


def test_an_unknown_scenario_lists_the_known_ones():
    assert "`slow`" in said(script_for(ask("scenario:nonsense"), 0))


@pytest.mark.parametrize(
    ("prompt", "word"),
    [
        ("How do I resume after a reload?", "Last-Event-ID"),
        ("How do tools work?", "@tool"),
        ("Does it work with FastAPI?", "FastAPI"),
        ("Which providers are there?", "anthropic"),
        ("Is it fast?", "bench"),
        ("What is tokenwire?", "never loses"),
        ("Why is the sky blue?", "sky blue"),
    ],
)
def test_free_questions_get_useful_simulated_answers(prompt, word):
    text = said(script_for(ask(prompt), 0))
    assert word in text
    assert re.search("simulat", text)
    assert prompt in text


def test_reasoning_is_shown_to_those_who_ask_for_it():
    steps = script_for(ask("Is it fast?", wants_reasoning=True), 0).steps
    assert [type(step) for step in steps] == [Reason, Say]


def test_declared_tools_are_called_when_asked_for():
    def calls(prompt, *tools, **more):
        script = script_for(ask(prompt, tools=list(tools), **more), 0)
        return [(s.name, s.arguments) for s in script.steps if isinstance(s, Call)]

    assert calls("weather in Rio de Janeiro tomorrow?", CITY) == [
        ("get_weather", {"city": "Rio de Janeiro"})
    ]
    assert calls("weather in Rome and weather in Oslo", CITY) == [
        ("get_weather", {"city": "Rome"}),
        ("get_weather", {"city": "Oslo"}),
    ]
    assert calls("what time is it?", ToolSpec("clock")) == [("clock", {})]
    assert calls("calculate 2+3*4", ToolSpec("calculator")) == [
        ("calculator", {"expression": "2+3*4"})
    ]
    assert calls("please delete report.txt", ToolSpec("delete_file")) == [
        ("delete_file", {"path": "report.txt"})
    ]
    assert calls("weather in Paris") == []
    assert calls("weather in Paris", CITY, tool_choice="none") == []
    assert calls("hello", CITY, tool_choice="required")[0][0] == "get_weather"


def test_calls_have_ids_that_differ():
    script = script_for(ask("scenario:tools"), 0)
    ids = [step.id for step in script.steps if isinstance(step, Call)]
    assert len(set(ids)) == 2
    assert script.finish == "tool_calls"


def test_a_denied_deletion_is_told_as_one():
    turns = [
        Turn("user", "scenario:approval"),
        Turn("assistant", "", calls=["delete_file"]),
        Turn("tool", "", [ToolResult("c1", "denied by ada: keep it")]),
    ]
    script = script_for(Ask(model="demo", turns=turns), 0)
    assert said(script).startswith("I did not delete the file: denied by ada")


def test_limits_of_the_caller():
    script = trim(script_for(ask("scenario:slow"), 0), ask("x", max_tokens=3))
    assert said(script) == "1 2 3 "
    assert script.finish == "length"
    script = trim(script_for(ask("scenario:slow"), 0), ask("x", stop=["7 "]))
    assert said(script) == "1 2 3 4 5 6 "
    assert script.finish == "stop"
    both = trim(script_for(ask("scenario:slow"), 0), ask("x", max_tokens=3, stop=["7 "]))
    assert (said(both), both.finish) == ("1 2 3", "length")
    both = trim(script_for(ask("scenario:slow"), 0), ask("x", max_tokens=50, stop=["7 "]))
    assert (said(both), both.finish) == ("1 2 3 4 5 6 ", "stop")


SCHEMA = {
    "type": "object",
    "$defs": {"leaf": {"type": "object", "properties": {"next": {"$ref": "#/$defs/leaf"}}}},
    "properties": {
        "name": {"type": "string", "maxLength": 5},
        "count": {"type": "integer", "minimum": 3, "maximum": 9},
        "share": {"type": "number", "minimum": 0, "maximum": 1},
        "kind": {"enum": ["a", "b"]},
        "when": {"type": "string", "format": "date-time"},
        "tags": {"type": "array", "items": {"type": "string"}, "minItems": 3},
        "maybe": {"anyOf": [{"type": "boolean"}, {"type": "null"}]},
        "leaf": {"$ref": "#/$defs/leaf"},
        "fixed": {"const": 7},
    },
    "required": ["name", "count", "share", "kind", "when", "tags", "maybe", "leaf", "fixed"],
    "additionalProperties": False,
}


@pytest.mark.parametrize("seed", range(10))
def test_instances_fit_their_schema(seed):
    value = instance(SCHEMA, random.Random(seed))
    jsonschema.validate(value, SCHEMA)
    script = script_for(ask("Give me one", schema=SCHEMA), seed)
    jsonschema.validate(json.loads(said(script)), SCHEMA)


def test_gaps_follow_the_seed():
    pace = Pace(ttft=0.2, rate=50, jitter=0.5)
    first, again, other = (Schedule(pace, seed) for seed in (1, 1, 2))
    gaps = [first.gap(1) for _ in range(50)]
    assert gaps == [again.gap(1) for _ in range(50)]
    assert gaps != [other.gap(1) for _ in range(50)]
    assert all(0.01 <= gap <= 0.03 for gap in gaps)
    assert Schedule(Pace(), 0).gap(5) == 0.0
