"""The channels of the Agent Streaming Protocol: what a reader of a thread asks for, and gets.

Always true: a filter names channels that there are; what a run did is numbered before anything is
filtered, so a number stands for the same event to every reader.
"""

from __future__ import annotations

from typing import Any, cast

import msgspec

from tokenwire.wire.chunk_encoder import Chunk
from tokenwire.wire.fields import Fields

__all__ = ["CHANNELS", "Filter", "parse_filter"]

#: The channels that there are.
CHANNELS = (
    "values",
    "updates",
    "messages",
    "tools",
    "lifecycle",
    "input",
    "checkpoints",
    "custom",
)
_CUSTOM = "custom:"
#: Prefixes of namespaces that one reader may ask for.
_MOST_PREFIXES = 100


class Filter(msgspec.Struct, frozen=True):
    """What a reader asks for. ``namespaces``: prefixes; None for all. ``depth``: how far below a
    prefix. ``since``: the number of the last event that it has."""

    channels: frozenset[str]
    namespaces: list[list[str]] | None = None
    depth: int | None = None
    since: int | None = None

    def takes(self, method: str, params: Chunk) -> bool:
        """Whether the reader gets an event."""
        channel = "input" if method.startswith("input.") else method
        if channel not in self.channels:
            name = params["data"].get("name") if channel == "custom" else None
            if name is None or _CUSTOM + name not in self.channels:
                return False
        namespace = params["namespace"]
        if self.namespaces is None:
            return self.depth is None or len(namespace) <= self.depth
        return any(self._is_below(namespace, prefix) for prefix in self.namespaces)

    def _is_below(self, namespace: list[str], prefix: list[str]) -> bool:
        below = len(namespace) - len(prefix)
        if below < 0 or (self.depth is not None and below > self.depth):
            return False
        pairs = zip(namespace, prefix, strict=False)
        return all(one == name or one.partition(":")[0] == name for one, name in pairs)


def parse_filter(value: Any) -> Filter:
    """The body of ``.../stream/events``. Raises `InputError`."""
    body = Fields(value)
    body.only(("channels", "namespaces", "depth", "since"))
    channels: list[str] = []
    for channel in body.items("channels", required=True, most=_MOST_PREFIXES):
        is_named = isinstance(channel, str) and len(channel) > len(_CUSTOM)
        if channel not in CHANNELS and not (is_named and channel.startswith(_CUSTOM)):
            choice = ", ".join(CHANNELS)
            what = f"'{str(channel)[:40]}' is not supported; choose from {choice}, custom:NAME"
            raise body.fail("channels", what)
        channels.append(channel)
    if not channels:
        raise body.fail("channels", "must name at least one")
    namespaces: list[list[str]] | None = None
    if body.has("namespaces"):
        prefixes = body.items("namespaces", most=_MOST_PREFIXES)
        namespaces = [_namespace(body, prefix) for prefix in prefixes] or None
    return Filter(
        frozenset(channels),
        namespaces,
        body.whole("depth", 0, 1000),
        body.whole("since", 0),
    )


def _namespace(body: Fields, value: Any) -> list[str]:
    entries = cast("list[Any]", value) if isinstance(value, list) else [None]
    names = [entry for entry in entries if isinstance(entry, str)]
    if len(entries) > _MOST_PREFIXES or len(names) != len(entries):
        raise body.fail("namespaces", "must be lists of texts")
    return names
