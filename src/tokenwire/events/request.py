"""A request: what a model is asked, in our own words, before a dialect turns it into its wire."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from tokenwire.events.message import Message

__all__ = ["OutputSchema", "Request", "ToolChoice", "ToolSpec"]

#: ``auto``, ``none``, ``required``, or the name of the one tool that must be called.
ToolChoice = str


class ToolSpec(msgspec.Struct, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """A tool as the model sees it. ``parameters``: JSON Schema of an object."""

    name: str
    description: str = ""
    parameters: dict[str, Any] = {}
    strict: bool | None = None
    executor: Literal["server", "client", "provider"] = "server"
    #: A provider-run tool's own object, passed through: ``{"type": "web_search"}``.
    native: dict[str, Any] | None = None


class OutputSchema(msgspec.Struct, kw_only=True, omit_defaults=True):
    """Structured output: the answer must be JSON of this schema."""

    schema: dict[str, Any]
    name: str = "answer"
    strict: bool = True


class Request(msgspec.Struct, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """One question to a model.

    ``temperature`` 0 to 2; ``max_tokens`` of output; ``stop`` up to the provider's number of
    strings; ``reasoning``: effort (``low``, ``medium``, ``high``) or a budget in tokens;
    ``extra``: fields merged into the provider's request body last, for what only it knows.
    """

    messages: list[Message]
    system: str | None = None
    temperature: float | None = None
    top_p: float | None = None
    max_tokens: int | None = None
    stop: list[str] | None = None
    seed: int | None = None
    tools: list[ToolSpec] | None = None
    tool_choice: ToolChoice | None = None
    parallel_tool_calls: bool | None = None
    output: OutputSchema | None = None
    reasoning: str | int | None = None
    extra: dict[str, Any] | None = None
