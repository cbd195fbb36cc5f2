"""Commands of the Agent Streaming Protocol as requests of LangGraph's runs.

Always true: a command that is not done here is refused by its name, in the protocol's form; an
answer names its interrupt.
"""

from __future__ import annotations

from typing import Any

import msgspec

from tokenwire.errors import ConflictError, InputError, TokenwireError
from tokenwire.wire.chunk_encoder import Chunk
from tokenwire.wire.fields import Fields
from tokenwire.wire.langgraph.request import RunRequest, parse_run

__all__ = ["COMMANDS", "Command", "failure", "parse_command", "success"]

#: The commands that are done here.
COMMANDS = ("run.start", "input.respond")
_START = ("assistant_id", "input", "config", "metadata", "multitask_strategy", "multitaskStrategy")
_RESPOND = ("interrupt_id", "response", "responses", "namespace", "config", "metadata")
_ENTRY = ("interrupt_id", "response", "namespace")
#: Why an answer does not count: its interrupt is over.
_OVER = frozenset({"nothing_waits", "run_ended", "expired", "call_ended"})
_NOT_HERE = ("update", "goto")


class Command(msgspec.Struct, frozen=True):
    """One command. ``run``: what a run is given, or the answers as its ``resume``; ``answers``: by
    their interrupts."""

    id: int
    run: RunRequest
    answers: dict[str, Any] | None = None


class UnknownCommand(InputError):
    """A command that is not done here."""


def parse_command(value: Any, thread: str) -> Command:
    """The body of ``.../commands``. Raises `InputError`."""
    body = Fields(value)
    number = body.whole("id", 0)
    if number is None:
        raise body.fail("id", "is missing")
    method = body.need("method")
    if method not in COMMANDS:
        raise UnknownCommand(
            f"'{method[:60]}' is not supported; {' and '.join(COMMANDS)} are", field="method"
        )
    params = body.object("params") or Fields({}, "params")
    if method == "run.start":
        return Command(number, parse_run(_start(params, thread)))
    answers = _answers(params, thread)
    resume = {"command": {"resume": answers}, "config": params.raw("config")}
    return Command(number, parse_run(resume), answers)


def _start(params: Fields, thread: str) -> Chunk:
    params.only(_START)
    strategy = params.text("multitask_strategy") or params.text("multitaskStrategy")
    checkpoint = _configured(params, thread)
    return {
        "assistant_id": params.raw("assistant_id"),
        "input": params.raw("input"),
        "metadata": params.raw("metadata"),
        "multitask_strategy": strategy,
        "checkpoint_id": checkpoint,
        "config": params.raw("config"),
    }


def _configured(params: Fields, thread: str) -> str | None:
    """The checkpoint of a ``config``, from which its thread and that are taken."""
    config = params.object("config")
    chosen = config.object("configurable") if config is not None else None
    if config is None or chosen is None:
        return None
    if (chosen.text("thread_id") or thread) != thread:
        raise chosen.fail("thread_id", "must be the thread of the path")
    checkpoint = chosen.text("checkpoint_id")
    rest = {n: v for n, v in chosen.value.items() if n not in ("thread_id", "checkpoint_id")}
    params.value = {**params.value, "config": {**config.value, "configurable": rest}}
    return checkpoint


def _answers(params: Fields, thread: str) -> dict[str, Any]:
    for name in _NOT_HERE:
        if params.raw(name) is not None:
            raise params.fail(name, "is not supported")
    params.only((*_RESPOND, *_NOT_HERE, "strict_resume"))
    if _configured(params, thread) is not None:
        raise params.fail("config", "may name no checkpoint in an answer")
    entries = [params]
    if params.has("responses"):
        entries = params.objects("responses")
        for name in _ENTRY:
            if name != "namespace" and name in params.value:
                raise params.fail(name, "and 'responses' exclude each other")
        for entry in entries:
            entry.only(_ENTRY)  # an update of one answer would be lost
    answers = {entry.need("interrupt_id"): entry.raw("response") for entry in entries}
    if len(answers) != len(entries) or not answers:
        raise params.fail("responses", "must answer each interrupt once")
    return answers


def success(command: Command, result: Chunk, through: int | None = None) -> Chunk:
    """``through``: the number of the newest event before what the command does."""
    meta = {"meta": {"applied_through_seq": through}} if through is not None else {}
    return {"type": "success", "id": command.id, "result": result, **meta}


def failure(value: Any, error: TokenwireError) -> Chunk:
    """Why the command of the body ``value`` was not done."""
    number = value.get("id") if isinstance(value, dict) else None
    code = "invalid_argument"
    if isinstance(error, UnknownCommand):
        code = "unknown_command"
    elif isinstance(error, ConflictError):
        is_over = error.details.get("reason") in _OVER
        code = "no_such_interrupt" if is_over else "unknown_error"
    is_number = isinstance(number, int) and not isinstance(number, bool)
    return {
        "type": "error",
        "id": number if is_number else None,
        "error": code,
        "message": error.message,
    }
