"""What a subscription to Durable Streams may ask for: its body, its streams, its pattern.

Always true: what is not understood is refused by name; matching a pattern takes no more steps than
its length times the path's.
"""

from __future__ import annotations

import hashlib
import re
from typing import Any, Literal

import msgspec

from tokenwire.errors import TokenwireError

__all__ = [
    "MOST_LINKS",
    "Config",
    "Glob",
    "Problem",
    "invalid",
    "matches",
    "parse_config",
    "stream_paths",
]

#: Streams that one subscription follows. Its document is written whole with every wake.
MOST_LINKS = 10_000
_LEASE_MS = (1_000, 600_000)
_MOST_TEXT = 1024
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")


class Problem(TokenwireError):
    """A request that is answered with an error of the protocol: ``{"error": {"code", ...}}``."""

    def __init__(self, status: int, code: str, message: str, **more: Any) -> None:
        super().__init__(message)
        self.http_status = status  # type: ignore[misc]
        self.code = code  # type: ignore[misc]
        self.more = more


class Config(msgspec.Struct, frozen=True, kw_only=True):
    """What a ``PUT`` asks for; the same again is the same subscription."""

    type: Literal["webhook", "pull-wake"]
    pattern: str | None = None
    streams: tuple[str, ...] = ()
    url: str | None = None
    wake_stream: str | None = None
    lease_ms: int = 30_000
    description: str | None = None

    @property
    def digest(self) -> str:
        """Equal for equal configurations, whatever the order of their streams."""
        fields = msgspec.to_builtins(self)
        fields["streams"] = sorted(set(self.streams))
        return hashlib.sha256(msgspec.json.encode(fields, order="sorted")).hexdigest()


def parse_config(body: Any) -> Config:
    """The body of a ``PUT``. Raises `Problem` (400)."""
    if not isinstance(body, dict):
        raise invalid("the body must be a JSON object")
    kind = body.get("type")
    if kind not in ("webhook", "pull-wake"):
        raise invalid("'type' must be webhook or pull-wake")
    pattern = stream_path(body["pattern"], "pattern") if body.get("pattern") else None
    streams = stream_paths(body.get("streams") or [])
    if pattern is None and not streams:
        raise invalid("missing 'pattern' or 'streams'")
    lease = body.get("lease_ttl_ms", 30_000)
    if type(lease) is not int or not _LEASE_MS[0] <= lease <= _LEASE_MS[1]:
        raise invalid(
            f"'lease_ttl_ms' must be a whole number from {_LEASE_MS[0]} to {_LEASE_MS[1]}"
        )
    description = body.get("description")
    if description is not None and (
        not isinstance(description, str) or len(description) > _MOST_TEXT
    ):
        raise invalid(f"'description' must be a text of at most {_MOST_TEXT} characters")
    url = wake_stream = None
    if kind == "webhook":
        webhook = body.get("webhook")
        url = webhook.get("url") if isinstance(webhook, dict) else None
        if not isinstance(url, str) or not url:
            raise invalid("a webhook subscription needs 'webhook.url'")
    else:
        wake_stream = stream_path(body.get("wake_stream"), "wake_stream")
        if wake_stream in streams:
            raise invalid("'wake_stream' cannot be one of the subscription's own streams")
    if body.get("filter") is not None:
        raise invalid("'filter' is not supported here")
    return Config(
        type=kind,
        pattern=pattern,
        streams=tuple(dict.fromkeys(streams)),
        url=url,
        wake_stream=wake_stream,
        lease_ms=lease,
        description=description,
    )


def stream_paths(value: Any) -> list[str]:
    """A list of stream paths. Raises `Problem` (400)."""
    if not isinstance(value, list) or len(value) > MOST_LINKS:
        raise invalid(f"'streams' must be a list of at most {MOST_LINKS} paths")
    return [stream_path(item, "streams") for item in value]


def stream_path(value: Any, name: str) -> str:
    """A path under the root, as subscriptions name it. Raises `Problem` (400)."""
    path = value.strip("/") if isinstance(value, str) else ""
    if not path or len(path) > _MOST_TEXT or _CONTROL.search(path):
        raise invalid(f"'{name}' must name streams under the root, such as events/abc")
    if path.partition("/")[0] in ("runs", "__ds"):
        raise invalid(f"'{name}': {path[:80]} is not a stream that can be subscribed to")
    return path


def invalid(message: str) -> Problem:
    """A request that is not understood."""
    return Problem(400, "INVALID_REQUEST", message)


def matches(pattern: str, path: str) -> bool:
    """Whether a glob matches: ``**`` is any number of segments, ``*`` anything inside of one."""
    return Glob(pattern).matches(path)


class Glob:
    """A compiled pattern. ``first``: the segment that every match begins with, None for any."""

    __slots__ = ("_parts", "first")

    def __init__(self, pattern: str) -> None:
        self._parts: list[str | list[str]] = [
            part if "*" not in part or part == "**" else part.split("*")
            for part in pattern.split("/")
        ]
        head = self._parts[0]
        self.first = head if isinstance(head, str) and head != "**" else None

    def matches(self, path: str) -> bool:
        """Whether ``path`` matches."""
        parts, items = self._parts, path.split("/")
        # Back to the last star only: what was matched before it need not be looked at again.
        at = item = back_at = back_item = 0
        starred = False
        while item < len(items):
            part = parts[at] if at < len(parts) else None
            if part == "**":
                at += 1
                starred, back_at, back_item = True, at, item
            elif part is not None and _fits(part, items[item]):
                at, item = at + 1, item + 1
            elif starred:
                back_item += 1
                at, item = back_at, back_item
            else:
                return False
        return all(part == "**" for part in parts[at:])


def _fits(part: str | list[str], text: str) -> bool:
    """Whether a segment fits: as it is, or (a list) with anything between its pieces."""
    if isinstance(part, str):
        return part == text
    head, *middle, tail = part
    end = len(text) - len(tail)
    if len(head) > end or not text.startswith(head) or not text.endswith(tail):
        return False
    place = len(head)
    for piece in middle:
        place = text.find(piece, place, end)
        if place < 0:
            return False
        place += len(piece)
    return True
