"""The named scenarios: what ``scenario:NAME`` at the start of a prompt makes the model do.

Always true: a scenario is a function of the request and the seed; `SCENARIOS` is the one list,
for the documentation, for ``GET /scenarios`` and for the model itself.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from functools import lru_cache
from urllib.parse import parse_qsl

import msgspec

from tokenwire.simulator import samples
from tokenwire.simulator.answers import answer, follow_up, thoughts, wanted_calls
from tokenwire.simulator.instances import instance
from tokenwire.simulator.script import (
    Ask,
    Call,
    Cut,
    Fail,
    PaceHint,
    Reason,
    Refuse,
    Say,
    Script,
    Stall,
    Step,
    compact,
    identifier,
    pieces,
)

__all__ = ["SCENARIOS", "Scenario", "script_for"]

_NAMED = re.compile(r"\s*scenario:([A-Za-z0-9_-]+)(?:\?(\S*))?", re.IGNORECASE)


_AT_ONCE = PaceHint(rate=0.0, jitter=0.0, tokens_per_chunk=1)


class Scenario(msgspec.Struct, frozen=True):
    """A name, one line for people, and the function that writes the script."""

    name: str
    summary: str
    build: Callable[[Ask, int], Script]


def script_for(ask: Ask, seed: int) -> Script:
    """The script of the answer to ``ask``; every call in it has an id."""
    named = _NAMED.match(ask.prompt)
    if named is None:
        script = _free(ask, seed)
    elif (scenario := SCENARIOS.get(named[1].lower())) is None:
        script = Script(steps=[Say(_unknown(named[1]))], name="unknown")
    else:
        script = scenario.build(ask, seed)
        script.name = scenario.name
        _apply_options(script, named[2] or "")
    if ask.tool_choice == "none":
        script = _without_calls(script)
    script.steps = [_with_id(step, at, ask, seed) for at, step in enumerate(script.steps)]
    if any(isinstance(step, Call) for step in script.steps):
        script.finish = "tool_calls"
    return script


def _apply_options(script: Script, text: str) -> None:
    options = dict(parse_qsl(text, keep_blank_values=True))
    script.faults = options.pop("faults", "")
    hint = script.pace
    changes: dict[str, float | int] = {}
    for name in ("rate", "ttft", "jitter"):
        if name in options:
            changes[name] = float(options[name])
    if "chunk" in options:
        changes["tokens_per_chunk"] = int(options["chunk"])
    if changes:
        script.pace = msgspec.structs.replace(hint, **changes)


def _with_id(step: Step, at: int, ask: Ask, seed: int) -> Step:
    if not isinstance(step, Call) or step.id:
        return step
    sources = (seed, ask.prompt, len(ask.turns), at, step.name)
    return msgspec.structs.replace(step, id=identifier("call_", *sources))


def _without_calls(script: Script) -> Script:
    calls = [step.name for step in script.steps if isinstance(step, Call)]
    if not calls:
        return script
    steps: list[Step] = [step for step in script.steps if not isinstance(step, Call)]
    steps.append(Say(f"I would have called {', '.join(calls)}, but tools are switched off here."))
    return msgspec.structs.replace(script, steps=steps, finish="stop")


def _unknown(name: str) -> str:
    names = ", ".join(f"`{scenario}`" for scenario in SCENARIOS)
    return f"Unknown scenario `{name}`. Choose one of these: {names}."


def _free(ask: Ask, seed: int) -> Script:
    if ask.results:
        return Script(steps=[Say(follow_up(ask))], name="results")
    if ask.schema is not None:
        return _object(ask, seed)
    if ask.json_mode:
        reply = {"simulated": True, "question": ask.prompt, "answer": "A JSON object, as asked."}
        return Script(steps=[Say(compact(reply).decode())], name="object")
    calls = wanted_calls(ask, seed)
    if calls:
        return Script(steps=[*calls], name="tools")
    steps: list[Step] = [Reason(thoughts(ask))] if ask.wants_reasoning else []
    return Script(steps=[*steps, Say(answer(ask, seed))], name="answer")


def _text(ask: Ask, seed: int) -> Script:
    return Script(steps=[Say(samples.MARKDOWN)])


def _slow(ask: Ask, seed: int) -> Script:
    parts = tuple(f"{number} " for number in range(1, 91))
    # 90 tokens at 30 a second: about three seconds, whatever the settings say.
    pace = PaceHint(rate=30.0, ttft=0.1, jitter=0.3, tokens_per_chunk=1)
    return Script(steps=[Say("".join(parts), parts)], pace=pace)


def _reasoning(ask: Ask, seed: int) -> Script:
    return Script(steps=[Reason(samples.THOUGHTS), Say(samples.CONCLUSION)])


def _tool(ask: Ask, seed: int) -> Script:
    if ask.results:
        return Script(steps=[Say(follow_up(ask))])
    return Script(steps=[Call("get_weather", {"city": "Paris"})])


def _tools(ask: Ask, seed: int) -> Script:
    if ask.results:
        return Script(steps=[Say(follow_up(ask))])
    return Script(
        steps=[
            Say("I ask the clock and the calculator at once.\n\n"),
            Call("clock", {"timezone": "Europe/Paris"}),
            Call("calculator", {"expression": "2+3*4"}),
        ]
    )


def _progress(ask: Ask, seed: int) -> Script:
    if ask.results:
        return Script(steps=[Say(follow_up(ask))])
    return Script(steps=[Say("This takes a moment.\n\n"), Call("slow_task", {"steps": 5})])


def _approval(ask: Ask, seed: int) -> Script:
    if ask.results:
        return Script(steps=[Say(follow_up(ask))])
    return Script(
        steps=[
            Say("I need your yes before I delete this.\n\n"),
            Call("delete_file", {"path": "report.txt"}),
        ]
    )


def _error(ask: Ask, seed: int) -> Script:
    text = "This answer starts well, and then the provider breaks off "
    message = "The server had an error while processing your request (simulated)."
    return Script(steps=[Say(text), Fail(message)])


@lru_cache(maxsize=4)
def _long_text(seed: int) -> Say:
    text = samples.words(50_000, seed)
    return Say(text, tuple(pieces(text)))


def _long(ask: Ask, seed: int) -> Script:
    # 50,000 words at the pace of reading would take twenty minutes; this takes about 20 s.
    pace = PaceHint(least_rate=2500.0, tokens_per_chunk=4)
    return Script(steps=[_long_text(seed)], pace=pace, whole=True)


def _stall(ask: Ask, seed: int) -> Script:
    return Script(steps=[Say("I say this much, and then nothing more"), Stall()])


def _cut(ask: Ask, seed: int) -> Script:
    return Script(steps=[Say("The connection breaks in the middle of this sen"), Cut()])


def _length(ask: Ask, seed: int) -> Script:
    return Script(steps=[Say("The limit of tokens is reached in the middle of")], finish="length")


def _refusal(ask: Ask, seed: int) -> Script:
    return Script(steps=[Refuse("I can't help with that (a simulated refusal).")], finish="refusal")


def _filter(ask: Ask, seed: int) -> Script:
    return Script(steps=[Say("The content filter stops this")], finish="content_filter")


def _object(ask: Ask, seed: int) -> Script:
    schema = ask.schema if ask.schema is not None else samples.PERSON_SCHEMA
    value = instance(schema, random.Random(seed))
    return Script(steps=[Say(compact(value).decode())], name="object")


def _empty(ask: Ask, seed: int) -> Script:
    return Script(steps=[])


@lru_cache(maxsize=1)
def _burst_text() -> Say:
    parts = tuple(f" word{number}" for number in range(10_000))
    return Say("".join(parts), parts)


def _burst(ask: Ask, seed: int) -> Script:
    return Script(steps=[_burst_text()], pace=_AT_ONCE, whole=True)


def _attack(ask: Ask, seed: int) -> Script:
    return Script(steps=[Say(samples.HOSTILE_MARKDOWN)])


@lru_cache(maxsize=1)
def _big_text() -> Say:
    line = "0123456789abcdef" * 3 + " tokenwire big\n\n"
    parts = (line * 64,) * (10 * 1024 * 1024 // (64 * len(line)))
    return Say("".join(parts), parts)


def _big(ask: Ask, seed: int) -> Script:
    return Script(steps=[_big_text()], pace=_AT_ONCE, whole=True)


SCENARIOS: dict[str, Scenario] = {
    scenario.name: scenario
    for scenario in (
        Scenario("text", "A Markdown answer: headings, code, a table, emoji, CJK, RTL.", _text),
        Scenario("slow", "Exactly `1 2 3 ... 90 `, one number a token, in about 3 s.", _slow),
        Scenario("reasoning", "Shown reasoning first, then the answer.", _reasoning),
        Scenario("tool", 'Calls get_weather with {"city":"Paris"}, then answers.', _tool),
        Scenario("tools", "Some text, then clock and calculator called in parallel.", _tools),
        Scenario("progress", "Calls slow_task, a tool that reports progress.", _progress),
        Scenario("approval", "Calls delete_file, which needs a person's yes.", _approval),
        Scenario("error", "Some text, then an error of the provider in the stream.", _error),
        Scenario("long", "50,000 words, at 2,500 tokens a second or faster.", _long),
        Scenario("stall", "Some text, then silence until the client goes away.", _stall),
        Scenario("cut", "Some text, then the connection closes without an end.", _cut),
        Scenario("length", "Some text that ends at the limit of tokens.", _length),
        Scenario("refusal", "A refusal in the provider's own way.", _refusal),
        Scenario("filter", "Some text, then the content filter.", _filter),
        Scenario("object", "JSON that fits the response schema asked for.", _object),
        Scenario("empty", "An answer without any text.", _empty),
        Scenario("burst", "10,000 tokens at once.", _burst),
        Scenario("markdown-attack", "Hostile Markdown: HTML, remote images, scripts.", _attack),
        Scenario("big", "An answer of 10 MB.", _big),
    )
}
