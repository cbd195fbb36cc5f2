"""From a request on a wire to what will be sent: head, timed actions, and what it will cost.

Always true: a `Reply` is made before its first byte is sent, and making it waits for nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from tokenwire.simulator.faults import FaultPlan, break_bytes, break_chunks
from tokenwire.simulator.pace import Schedule
from tokenwire.simulator.play import (
    Chunk,
    Identity,
    Usage,
    Wire,
    Writer,
    play,
    step_pieces,
    trim,
)
from tokenwire.simulator.playback import Action, Close, Send, Silence
from tokenwire.simulator.scenarios import script_for
from tokenwire.simulator.script import Ask, Fail, Reason, Script, compact
from tokenwire.simulator.settings import Settings

__all__ = ["Prepared", "Reply", "early_reply", "prepare", "reply", "spent", "timed_chunks"]

_HTML = (
    b"<!doctype html><html><head><title>Sign in</title></head><body>Sign in first.</body></html>"
)


class Prepared(msgspec.Struct):
    """A request that was understood: everything that its answer is a function of."""

    wire: Wire
    ask: Ask
    script: Script
    plan: FaultPlan
    identity: Identity
    seed: int


class Reply(msgspec.Struct):
    """Status, headers, and the body as timed actions."""

    status: int
    headers: dict[str, str]
    actions: Iterator[Action]
    #: Seconds before the status line.
    wait: float = 0.0
    refused: bool = False


def prepare(
    wire: Wire,
    body: Any,
    path: str,
    query: Mapping[str, str],
    settings: Settings,
    identity: Identity,
    header_faults: str = "",
) -> Prepared:
    """Parse a request; raises ValueError, TypeError, KeyError or AttributeError if it is none."""
    if not isinstance(body, dict):
        raise ValueError("the body must be a JSON object")
    ask = wire.read(body, path, query)
    seed = settings.seed if ask.seed is None else ask.seed
    script = trim(script_for(ask, seed), ask)
    faults = ",".join(filter(None, (header_faults, script.faults, settings.faults)))
    return Prepared(wire, ask, script, FaultPlan.parse(faults), identity, seed)


def timed_chunks(
    prepared: Prepared, settings: Settings, writer: Writer | None = None
) -> Iterator[Chunk]:
    """The answer's chunks, before anything goes wrong; the same ones each time it is called."""
    schedule = Schedule(settings.pace.with_hint(prepared.script.pace), prepared.seed)
    if writer is None:
        writer = prepared.wire.writer(prepared.ask, prepared.identity)
    return play(writer, prepared.script, schedule, Usage(prepared.ask.input_tokens()))


def reply(prepared: Prepared, settings: Settings, count_of_plan: int) -> Reply:
    """The answer with its faults; ``count_of_plan`` numbers the requests with this plan from 1."""
    plan = prepared.plan
    slow = plan.get("slow-start")
    wait = 0.0 if slow is None else (5.0 if slow.at is None else slow.at)
    early = early_reply(plan, prepared.wire, count_of_plan)
    if early is None:
        early = _streamed(prepared, settings) if prepared.ask.stream else _whole(prepared, settings)
    early.wait += wait
    if plan:
        early.actions = break_bytes(plan, early.actions, plan.draw(prepared.seed))
    return early


def early_reply(plan: FaultPlan, wire: Wire, count: int) -> Reply | None:
    """What a plan puts in the place of the whole answer, if anything; ``count`` numbers the
    requests with this plan from 1."""
    for kind, code in (("rate-limit", "rate_limit_exceeded"), ("overloaded", "overloaded")):
        fault = plan.get(kind)
        if fault is None or count > (1 if fault.at is None else fault.at):
            continue
        status = 429 if kind == "rate-limit" else 529 if wire.name == "anthropic" else 503
        after = "1" if fault.more is None else f"{fault.more:g}"
        message = "Rate limit reached" if status == 429 else "The model is overloaded"
        refused = _refused(wire, status, f"{message} (simulated).", code)
        refused.headers["retry-after"] = after
        return refused
    if fault := plan.get("status"):
        status = 500 if fault.at is None else int(fault.at)
        return _refused(wire, status, f"Simulated status {status}.", "simulated")
    if plan.get("html"):
        return Reply(200, {"content-type": "text/html"}, iter([Send(0.0, _HTML)]), refused=True)
    if plan.get("error-200"):
        body = compact(wire.error(500, "Simulated error in a 200.", "server_error"))
        return Reply(
            200, {"content-type": "application/json"}, iter([Send(0.0, body)]), refused=True
        )
    return None


def _refused(wire: Wire, status: int, message: str, code: str) -> Reply:
    body = compact(wire.error(status, message, code))
    headers = {"content-type": "application/json"}
    return Reply(status, headers, iter([Send(0.0, body)]), refused=True)


def _streamed(prepared: Prepared, settings: Settings) -> Reply:
    wire, ask, plan = prepared.wire, prepared.ask, prepared.plan
    writer = wire.writer(ask, prepared.identity)
    chunks = timed_chunks(prepared, settings, writer)
    kind = "application/json" if ask.extra.get("array") else wire.stream_type
    if plan:
        chunks = break_chunks(
            plan,
            chunks,
            plan.draw(prepared.seed),
            sse="event-stream" in kind,
            error=lambda: writer.fail(Fail("Simulated error in the stream.")),
        )
    headers = {"content-type": kind, "cache-control": "no-cache"}
    return Reply(200, headers, _actions(chunks))


def _actions(chunks: Iterator[Chunk]) -> Iterator[Action]:
    for chunk in chunks:
        if chunk.kind == "stall":
            yield Silence()
        elif chunk.kind == "cut":
            yield Close("fin")
        else:
            yield Send(chunk.delay, chunk.data)


def _whole(prepared: Prepared, settings: Settings) -> Reply:
    wire, ask, script = prepared.wire, prepared.ask, prepared.script
    total, kinds = 0.0, set[str]()
    for chunk in timed_chunks(prepared, settings):
        total += chunk.delay
        kinds.add(chunk.kind)
    headers = {"content-type": "application/json"}
    if "error" in kinds:
        failed = next(step for step in script.steps if isinstance(step, Fail))
        refused = _refused(wire, 500, failed.message, failed.code)
        refused.wait = total
        return refused
    if kinds & {"stall", "cut"}:
        last: Action = Silence() if "stall" in kinds else Close("fin")
        return Reply(200, headers, iter([Send(total, b'{"'), last]))
    body = compact(wire.complete(ask, script, spent(prepared), prepared.identity))
    return Reply(200, headers, iter([Send(total, body)]))


def spent(prepared: Prepared) -> Usage:
    """Token counts of the whole answer."""
    usage = Usage(prepared.ask.input_tokens())
    for step in prepared.script.steps:
        tokens = len(step_pieces(step))
        usage.output += tokens
        usage.reasoning += tokens if isinstance(step, Reason) else 0
    return usage
