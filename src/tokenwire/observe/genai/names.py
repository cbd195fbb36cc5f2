"""The conventions' names for what facts say: attributes of spans and labels of metrics."""

from __future__ import annotations

from typing import Any

from tokenwire.observe.facts import AnswerEnded, AnswerStarted, RunEnded, RunStarted, TakenOver
from tokenwire.observe.genai.messages import FINISH_REASONS
from tokenwire.observe.request_facts import RequestFacts

__all__ = [
    "chat_labels",
    "conclusion",
    "failure_label",
    "name_and_attributes",
    "server_attributes",
]

_Begun = RunStarted | TakenOver | RunEnded
_Answer = AnswerStarted | AnswerEnded


def name_and_attributes(fact: _Begun | _Answer) -> tuple[str, dict[str, Any]]:
    """Of the span of a run or of an answer, as it begins."""
    agent = thread = request = None
    if isinstance(fact, RunStarted | TakenOver | RunEnded):
        agent, thread = fact.agent, fact.thread
    if isinstance(fact, RunStarted | TakenOver | AnswerStarted):
        request = fact.request
    operation = "chat" if agent is None else "invoke_agent"
    attributes: dict[str, Any] = {
        "gen_ai.operation.name": operation,
        "tokenwire.run": fact.run,
        "gen_ai.request.model": fact.model if agent is None else None,
        "gen_ai.agent.name": agent,
        "gen_ai.conversation.id": thread,
        "gen_ai.request.stream": True if agent is None else None,
    }
    if request is not None:
        attributes |= _request_attributes(request)
    return f"{operation} {agent or fact.model}", _without_none(attributes)


def _request_attributes(request: RequestFacts) -> dict[str, Any]:
    return {
        "gen_ai.provider.name": request.provider,
        "gen_ai.output.type": request.output,
        "gen_ai.request.temperature": request.temperature,
        "gen_ai.request.top_p": request.top_p,
        "gen_ai.request.max_tokens": request.max_tokens,
        "gen_ai.request.seed": request.seed,
        "gen_ai.request.reasoning.level": request.reasoning,
        **server_attributes(request.address, request.port),
    }


def server_attributes(address: str | None, port: int | None) -> dict[str, Any]:
    """Where the model is."""
    return _without_none(
        {"server.address": address, "server.port": None if address is None else port}
    )


def conclusion(fact: RunEnded | AnswerEnded) -> dict[str, Any]:
    """How it ended; without what the provider did not report."""
    reason, unknown = fact.finish_reason, fact.usage_unknown
    return _without_none(
        {
            "gen_ai.usage.input_tokens": fact.input_tokens or (None if unknown else 0),
            "gen_ai.usage.output_tokens": fact.output_tokens or (None if unknown else 0),
            "tokenwire.usage_unknown": unknown or None,
            "tokenwire.outcome": fact.outcome,
            "tokenwire.events": fact.events,
            "gen_ai.usage.cache_read.input_tokens": fact.cached_input_tokens,
            "gen_ai.usage.cache_creation.input_tokens": fact.cache_write_tokens,
            "gen_ai.usage.cache_write.input_tokens": fact.cache_write_tokens,
            "gen_ai.usage.reasoning.output_tokens": fact.reasoning_tokens,
            # In the conventions' words where they have one, else in ours.
            "gen_ai.response.finish_reasons": None
            if reason is None
            else [FINISH_REASONS.get(reason, reason)],
            "gen_ai.response.model": fact.response_model,
            "gen_ai.response.id": fact.response_id,
        }
    )


def chat_labels(model: str) -> dict[str, str]:
    """Of the metrics of a model's run or answer."""
    return {"gen_ai.operation.name": "chat", "gen_ai.request.model": model}


def failure_label(code: str | None) -> dict[str, str]:
    """The label of what failed with ``code``; none of what did not."""
    return {"error.type": code} if code else {}


def _without_none(attributes: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in attributes.items() if value is not None}
