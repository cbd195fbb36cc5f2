"""The cursor of a conversation's stream: where its feed is, and where each open run of it is.

Always true: a reader that comes back with it gets what follows in the feed, and of each run what
follows there; a cursor without runs' places reads the same feed.
"""

from __future__ import annotations

import re

import msgspec

from tokenwire.errors import CursorError

__all__ = ["MOST_RUNS", "StreamPlace", "parse_place"]

#: Runs of a conversation that one stream follows at a time.
MOST_RUNS = 16
#: Before each run of a cursor, and between it and its place. Ids of runs have neither.
_RUN, _AT = "~", ":"
_FEED = re.compile(r"[0-9]{1,15}-[0-9a-f]{16}")
_OPEN = re.compile(r"([A-Za-z0-9_-]{16,64}):(0|[0-9]{1,15}-[0-9a-f]{16})")
#: Characters of a cursor.
_MOST = 4096


class StreamPlace(msgspec.Struct):
    """``feed``: the cursor in the feed; ``runs``: those of the open runs, ``0`` for one of which
    nothing was read; None where the stream has the feed alone."""

    feed: str
    runs: dict[str, str] | None = None

    def __str__(self) -> str:
        if self.runs is None:
            return self.feed
        parts = (f"{_RUN}{run}{_AT}{cursor}" for run, cursor in self.runs.items())
        return self.feed + ("".join(parts) or _RUN)


def parse_place(cursor: str | None) -> StreamPlace | None:
    """The place that a client sent back; None without one. Raises `CursorError`."""
    if not cursor or cursor in ("0", "-1"):
        return None
    feed, mark, rest = cursor.partition(_RUN)
    runs: dict[str, str] | None = None
    is_whole = len(cursor) <= _MOST and _FEED.fullmatch(feed) is not None
    if mark:
        runs = {}
        for entry in rest.split(_RUN) if rest else ():
            match = _OPEN.fullmatch(entry)
            is_whole = is_whole and match is not None
            if match is not None:
                runs[match[1]] = match[2]
    if not is_whole or (runs is not None and len(runs) > MOST_RUNS):
        raise CursorError("invalid cursor; send the id of the last event received, or omit it")
    return StreamPlace(feed, runs)
