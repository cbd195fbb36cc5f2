"""The events of parts: text, reasoning, refusals, tool calls, results, files.

Always true: ``part`` is unique within a run; a delta holds the new piece only. Import these from
`tokenwire.events.model`, where the whole union is.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import msgspec

__all__ = [
    "Agent",
    "Event",
    "FileDelta",
    "FileEnd",
    "FileStart",
    "Kind",
    "OpaqueEnd",
    "OpaqueStart",
    "PartAttr",
    "PartDelta",
    "PartEnd",
    "PartPatch",
    "PartStart",
    "PartStatus",
    "ProviderResultDelta",
    "ProviderResultEnd",
    "ProviderResultStart",
    "ReasoningDelta",
    "ReasoningEnd",
    "ReasoningStart",
    "RefusalDelta",
    "RefusalEnd",
    "RefusalStart",
    "TextDelta",
    "TextEnd",
    "TextStart",
    "ToolCallDelta",
    "ToolCallEnd",
    "ToolCallStart",
]

PartStatus = Literal["complete", "truncated", "invalid", "discarded"]
Kind = Literal["text", "reasoning", "refusal", "tool-call", "provider-result", "file", "opaque"]


class Event(msgspec.Struct, kw_only=True, omit_defaults=True, gc=False):
    """What every event carries.

    ``seq``: position in the run, 1, 2, 3, ... without gap (0: not assigned yet, `events.order`
    assigns it). ``t``: milliseconds since the run started. ``extra``: fields of the JSON form that
    this version does not know; kept, and written back.
    """

    seq: int = 0
    t: int = 0
    extra: dict[str, Any] | None = None

    @property
    def type(self) -> str:
        """The JSON ``type``: ``text-delta``."""
        return str(self.__struct_config__.tag)


class Agent(msgspec.Struct, kw_only=True, omit_defaults=True, frozen=True):
    """Who speaks. ``parent``: the id of the agent that called this one; absent for the root agent,
    whose words are the answer."""

    id: str
    name: str | None = None
    parent: str | None = None


class PartStart(Event):
    """Base of ``*-start``. ``choice``: which candidate, when more than one was asked for.
    ``agent``: who speaks, in a run of several agents."""

    kind: ClassVar[Kind]
    part: int
    step: int = 0
    choice: int = 0
    agent: Agent | None = None
    #: What the provider calls it (item or block id, index), for those who must send it back.
    meta: dict[str, Any] | None = None


class PartDelta(Event):
    """Base of ``*-delta``: the next piece, never the text so far."""

    kind: ClassVar[Kind]
    part: int
    text: str


class PartEnd(Event):
    """Base of ``*-end``. ``text``, if present, replaces the deltas' text (a provider's
    correction). ``size``: UTF-8 bytes of the part's text."""

    kind: ClassVar[Kind]
    part: int
    status: PartStatus = "complete"
    size: int = 0
    text: str | None = None


class TextStart(PartStart, tag="text-start"):
    kind = "text"


class TextDelta(PartDelta, tag="text-delta"):
    kind = "text"


class TextEnd(PartEnd, tag="text-end"):
    kind = "text"


class ReasoningStart(PartStart, tag="reasoning-start"):
    """``summary``: the provider's summary instead of the reasoning itself."""

    kind = "reasoning"
    summary: bool = False


class ReasoningDelta(PartDelta, tag="reasoning-delta"):
    kind = "reasoning"


class ReasoningEnd(PartEnd, tag="reasoning-end"):
    kind = "reasoning"


class RefusalStart(PartStart, tag="refusal-start"):
    kind = "refusal"


class RefusalDelta(PartDelta, tag="refusal-delta"):
    kind = "refusal"


class RefusalEnd(PartEnd, tag="refusal-end"):
    kind = "refusal"


class ToolCallStart(PartStart, tag="tool-call-start"):
    """The model calls a tool. ``executor``: who runs it. ``id_source``: ``synthetic`` if the
    provider gave no id. ``name`` may follow as a ``part-attr`` ``tool_name``. ``format``:
    ``text`` for free-form input (no JSON)."""

    kind = "tool-call"
    name: str = ""
    call_id: str = ""
    id_source: Literal["provider", "synthetic"] = "provider"
    executor: Literal["server", "client", "provider"] = "server"
    format: Literal["json", "text"] = "json"


class ToolCallDelta(PartDelta, tag="tool-call-delta"):
    """A piece of the arguments' JSON text; not valid JSON before the call ends."""

    kind = "tool-call"


class ToolCallEnd(PartEnd, tag="tool-call-end"):
    """``arguments``: the parsed value if ``complete``; ``error``: the reason if ``invalid``."""

    kind = "tool-call"
    arguments: Any = None
    error: str | None = None


class ProviderResultStart(PartStart, tag="provider-result-start"):
    """The result of a tool that the provider ran itself: ``content``, unchanged."""

    kind = "provider-result"
    call_id: str = ""
    name: str = ""
    content: Any = None


class ProviderResultDelta(PartDelta, tag="provider-result-delta"):
    kind = "provider-result"


class ProviderResultEnd(PartEnd, tag="provider-result-end"):
    kind = "provider-result"
    content: Any = None


class FileStart(PartStart, tag="file-start"):
    """An image, audio or file of the model; deltas are pieces of base64 text."""

    kind = "file"
    media: Literal["image", "audio", "file"] = "file"
    media_type: str = "application/octet-stream"
    name: str | None = None
    url: str | None = None


class FileDelta(PartDelta, tag="file-delta"):
    kind = "file"


class FileEnd(PartEnd, tag="file-end"):
    kind = "file"


class OpaqueStart(PartStart, tag="opaque-start"):
    """A provider's part that is unreadable but must be kept: redacted thinking, compaction."""

    kind = "opaque"
    name: str = ""
    payload: Any = None


class OpaqueEnd(PartEnd, tag="opaque-end"):
    kind = "opaque"


class PartAttr(Event, tag="part-attr"):
    """An attribute of an open part.

    ``name`` and the fold's use of ``value``: ``signature``, ``encrypted``, ``call_id``,
    ``tool_name``, ``status`` replace; ``citation`` (an object) and ``logprobs`` (a list) add;
    ``meta`` (an object) merges.
    """

    part: int
    name: str
    value: Any = None


class PartPatch(Event, tag="part-patch"):
    """A JSON value set at ``path`` (JSONPath, ``$.city``) of a part's arguments; ``open`` strings
    are continued by the next patch of the same path."""

    part: int
    path: str
    value: Any = None
    open: bool = False
